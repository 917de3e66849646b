"""Origins: which web pages may call, and which are none of ours.

For: CORS (WHATWG Fetch), and pages that would use a browser on this machine to reach a service that asks for no key.
Leaves headers and answers to `api.cors`. Invariant: an origin is trusted only where it is named, or where it is the
service's own and can't be anybody else's.
"""

import ipaddress
import re
from collections.abc import Collection
from enum import Enum

_ORIGIN = re.compile(r"(https?)://([a-z0-9._-]+|\[[0-9a-f:.]+\])(?::([0-9]{1,5}))?")
_USUAL_PORTS = {"http": "80", "https": "443"}


class Verdict(Enum):
    """What a request's `Origin` makes of it: no page's, a page's of ours, one's that is named, or another's."""

    NONE = "none"
    OWN = "own"
    NAMED = "named"
    FOREIGN = "foreign"


def parse_origins(text: str) -> tuple[str, ...]:
    """Origins separated by commas, in the form in which browsers send them; raises ValueError."""
    return tuple(dict.fromkeys(_normalize(each.strip()) for each in text.split(",") if each.strip()))


def _normalize(text: str) -> str:
    if text == "*":
        raise ValueError("must name each origin: * would let every web page call")
    found = _ORIGIN.fullmatch(text.lower())
    if found is None or int(found[3] or 1) not in range(1, 65536):
        raise ValueError("must be origins such as https://example.org, separated by commas")
    scheme, host, port = found.groups()
    return f"{scheme}://{host}" if port in (None, _USUAL_PORTS[scheme]) else f"{scheme}://{host}:{int(port)}"


def origin_of(url: str) -> str:
    """The origin of pages at an http(s) address."""
    scheme, _, rest = url.lower().partition("://")
    return f"{scheme}://{rest.partition('/')[0].removesuffix(f':{_USUAL_PORTS[scheme]}')}"


def judge(origin: str | None, host: str, named: Collection[str], own: str | None) -> Verdict:
    """What to make of a request with these `Origin` and `Host` headers.

    Our own are `own`, the origin of the public address, and a page that this service is asked for under a name of the
    loopback alone: any other name may have been made to lead here by somebody else (DNS rebinding).
    """
    if origin is None:
        return Verdict.NONE
    if origin in named:
        return Verdict.NAMED
    found = _ORIGIN.fullmatch(origin)
    local = found is not None and is_loopback(found[2].strip("[]")) and origin.partition("://")[2] == host.lower()
    return Verdict.OWN if origin == own or local else Verdict.FOREIGN


def is_loopback(host: str) -> bool:
    """Whether a name or address to listen on, or that a caller has used, is this machine's alone."""
    if host.lower() == "localhost":
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return (mapped or address).is_loopback
