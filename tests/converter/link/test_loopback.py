"""A free port is one on which an engine can listen."""

import asyncio

from converter.link.loopback import free_port


async def test_free_port_can_be_listened_on() -> None:
    ports = {free_port() for _ in range(5)}
    for port in ports:
        async with await asyncio.start_server(lambda *_: None, "127.0.0.1", port):
            assert 1024 <= port <= 65535
