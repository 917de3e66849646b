"""Addresses of HTTP services, as people give them.

Invariant: an address that is taken can be put before a path, and has no secret in it.
"""

from urllib.parse import urlsplit


def parse_url(value: str) -> str:
    """An http(s) address without credentials, query and fragment, and without a slash at its end."""
    if not value.isprintable() or " " in value:
        raise ValueError("must not contain spaces or control characters")
    parts = urlsplit(value)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("must be an address such as http://127.0.0.1:8188")
    if "@" in parts.netloc:
        raise ValueError("must not contain credentials")
    if parts.query or parts.fragment:
        raise ValueError("must not have a query or a fragment")
    try:
        _ = parts.port
    except ValueError:
        raise ValueError("must have a port from 0 to 65535, or none") from None
    return value.rstrip("/")
