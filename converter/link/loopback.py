"""A port of this machine's loopback for an engine that the converter starts itself."""

import socket


def free_port() -> int:
    """A TCP port of 127.0.0.1 on which nobody listens at this moment; nothing keeps it free afterwards."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
