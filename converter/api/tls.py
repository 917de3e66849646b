"""TLS by certificate files, which are read again when they change.

Leaves to others: when that is (`renewal`), and who listens (`server`). Invariant: connections are met with the last
chain and key that belong together.
"""

import ssl
from pathlib import Path


class Certificate:
    """A chain and its key, PEM (`renewal.Source`); `context` is for servers. Raises OSError, as `read` does."""

    def __init__(self, chain: Path, key: Path | None) -> None:
        self.paths = (chain,) if key is None else (chain, key)
        self.context = _make_context()
        self._chain, self._key = chain, key
        self.read()

    def read(self) -> None:
        """Meet connections from here on with what the files have; raises OSError, and then all stays as it was."""
        for context in (_make_context(), self.context):  # what can't be used must not get half into the second
            context.load_cert_chain(self._chain, self._key, password="")  # nobody is there to be asked for one


def _make_context() -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.set_alpn_protocols(["http/1.1"])
    return context
