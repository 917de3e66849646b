"""Addresses of HTTP services, as people give them, and which of them may be fetched for a caller.

For: the operator's own addresses (`parse_url`), and guarded fetches: what a URL says (`vet`), and whether an address
that its host resolved to may be connected to (`is_public`). Leaves resolving and connecting to others.

Invariant: an address that is taken can be put before a path, and has no secret in it. A target that is vetted has one
spelling: what is refused is everything that two readers could take for different hosts. Ranges follow the IANA
registries of special-purpose addresses (RFC 6890), special names RFC 6761, 6762 and 9476, ports the Fetch standard.
"""

import re
from collections.abc import Collection
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from urllib.parse import urlsplit

MAX_URL = 8192
"""Characters of a URL that is fetched."""

USUAL_PORTS = {"http": 80, "https": 443}

_URL = re.compile(
    r"""
    (?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)://
    (?P<authority>[^/?#]*)
    (?P<rest>[/?][^#]*)?
    (?:\#.*)?
    """,
    re.VERBOSE,
)
_HOST = re.compile(r"(?P<host>\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::(?P<port>[0-9]{0,5}))?")
_LABEL = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)")
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")

_SPECIAL_NAMES = frozenset(
    {
        "alt", "arpa", "example", "home", "internal", "intranet", "invalid", "lan", "local", "localdomain", "localhost",
        "onion", "private", "test",
    }
)  # fmt: skip
"""Last labels of names that are no public ones."""

_BAD_PORTS = frozenset(
    {
        1719, 1720, 1723, 2049, 3659, 4045, 4190, 5060, 5061, 6000, 6566, 6665, 6666, 6667, 6668, 6669, 6679, 6697,
        10080,
    }
)  # fmt: skip
"""Above 1023, those on which other protocols listen that HTTP could be mistaken for (Fetch standard, bad port)."""

_CLOSED_V4 = tuple(
    map(
        IPv4Network,
        (
            "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12",
            "192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24",
            "203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4",
            "168.63.129.16/32",  # public by its number, but inside Azure the host that each machine trusts
        ),
    )
)  # fmt: skip
_UNICAST_V6 = IPv6Network("2000::/3")
_CLOSED_V6 = tuple(map(IPv6Network, ("2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20")))
"""Of the unicast range: protocol assignments (Teredo and ORCHID among them), documentation, and 6to4."""

_NAT64 = IPv6Network("64:ff9b::/96")
"""IPv4 behind a translator (RFC 6052): as public as the address inside."""


def parse_url(value: str, example: str = "http://127.0.0.1:8188") -> str:
    """An http(s) address without credentials, query and fragment, and without a slash at its end; raises ValueError,
    with the `example` where it is none.
    """
    if not value.isprintable() or " " in value:
        raise ValueError("must not contain spaces or control characters")
    parts = urlsplit(value)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"must be an address such as {example}")
    if "@" in parts.netloc:
        raise ValueError("must not contain credentials")
    if parts.query or parts.fragment:
        raise ValueError("must not have a query or a fragment")
    try:
        _ = parts.port
    except ValueError:
        raise ValueError("must have a port from 0 to 65535, or none") from None
    return value.rstrip("/")


class Refused(Exception):
    """A URL that is not fetched. The text goes on from "the URL" and repeats nothing of it."""


class NotPublic(Refused):
    """It leads to what is none of the public, which an operator may trust nevertheless."""


@dataclass(frozen=True, slots=True)
class Target:
    """Where a fetch goes. `host` is a name in small letters without a dot at its end, or an address without brackets.

    `rest` is path and query, at least a slash. `trusted`: the operator has named the origin, wherever it leads.
    """

    scheme: str
    host: str
    port: int
    rest: str
    trusted: bool

    @property
    def is_literal(self) -> bool:
        """Whether the host is an address, which needs no resolving."""
        return ":" in self.host or self.host.rpartition(".")[2].isdigit()

    @property
    def origin(self) -> str:
        """As in an `Origin` header: without the scheme's usual port."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        port = "" if USUAL_PORTS[self.scheme] == self.port else f":{self.port}"
        return f"{self.scheme}://{host}{port}"

    @property
    def url(self) -> str:
        """The URL to ask for, without its fragment."""
        return self.origin + self.rest


def vet(url: str, trusted: Collection[str] = ()) -> Target:
    """What a URL says, if it may be fetched as far as the URL itself shows; raises Refused.

    trusted: origins that the operator has named. They may be private ones, at any port.
    """
    if len(url) > MAX_URL:
        raise Refused(f"is longer than {MAX_URL} characters")
    if not url.isprintable() or any(character in url for character in ' \\"<>'):
        raise Refused("has characters that a URL can't have")
    found = _URL.fullmatch(url)
    scheme = found["scheme"].lower() if found else ""
    if found is None or scheme not in USUAL_PORTS:
        raise Refused("must begin with http:// or https://")
    if "@" in found["authority"]:
        raise Refused("must not have a user's name or password in it")
    place = _HOST.fullmatch(found["authority"])
    if place is None:
        raise Refused("must have a host in plain ASCII (a name, an IPv4 address, or an IPv6 address in brackets)")
    port = int(place["port"] or USUAL_PORTS[scheme])
    rest = found["rest"] or "/"
    host = _read_host(place["host"].lower())
    target = Target(scheme, host, port, rest if rest.startswith("/") else f"/{rest}", trusted=False)
    if not 0 < port < 65536:
        raise Refused("has a port that does not exist")
    if target.origin in trusted:
        return Target(scheme, host, port, target.rest, trusted=True)
    _check_public(target)
    return target


def _read_host(text: str) -> str:
    """One spelling of a host; raises Refused for any that could be read in two ways."""
    if text.startswith("["):
        try:
            return str(IPv6Address(text[1:-1]))
        except ValueError:
            raise Refused("has an IPv6 address that is none") from None
    host = text.removesuffix(".")
    labels = host.split(".")
    if len(host) > 253 or not all(map(_LABEL.fullmatch, labels)):
        raise Refused("has a host name that is none")
    if _NUMBER.fullmatch(labels[-1]):  # what others read as an IPv4 address (URL standard, ends-in-a-number checker)
        try:
            return str(IPv4Address(host))
        except ValueError:
            raise Refused("must write an IPv4 address as four decimal numbers") from None
    return host


def _check_public(target: Target) -> None:
    """Raise NotPublic where host or port show that the target is none of the public."""
    if target.port not in USUAL_PORTS.values() and (target.port < 1024 or target.port in _BAD_PORTS):
        raise NotPublic("has a port on which no web server is expected")
    if target.is_literal:
        if not is_public(target.host):
            raise NotPublic("leads to an address that is not public")
        return
    labels = target.host.split(".")
    if len(labels) == 1 or labels[-1] in _SPECIAL_NAMES:
        raise NotPublic("has a host whose name is not public")


def is_public(address: str) -> bool:
    """Whether an IP address is one of the public internet. Text that is no address, or has a zone, is not."""
    try:
        return _is_public_v6(IPv6Address(address)) if ":" in address else _is_public_v4(IPv4Address(address))
    except ValueError:
        return False


def _is_public_v4(address: IPv4Address) -> bool:
    return not any(address in network for network in _CLOSED_V4)


def _is_public_v6(address: IPv6Address) -> bool:
    if address.scope_id is not None:
        return False
    if address in _NAT64:
        return _is_public_v4(IPv4Address(int(address) & 0xFFFFFFFF))
    return address in _UNICAST_V6 and not any(address in network for network in _CLOSED_V6)
