"""A node's metrics as a scraper gets them."""

from __future__ import annotations

import socket

import trio
from prometheus_client.parser import text_string_to_metric_families

from comity.node.home import Home

Series = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def parsed(text: str) -> Series:
    """Every sample by its name and its sorted labels."""
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def http_get(address: str | tuple[str, int], request: str) -> tuple[int, str]:
    """One request over a Unix socket or a port: the status and the body."""
    family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET
    with socket.socket(family) as connection:
        connection.settimeout(10)
        connection.connect(address)
        connection.sendall(request.encode())
        data = b"".join(iter(lambda: connection.recv(65_536), b""))
    head, _, body = data.decode().partition("\r\n\r\n")
    return int(head.split()[1]), body


async def scraped(home: Home) -> Series:
    """All series of a node that runs, read with the reader's token."""
    token = home.token("reader").read_text().strip()
    lines = ["GET /metrics HTTP/1.1", "Host: node", "Connection: close", f"Authorization: Bearer {token}"]
    status, text = await trio.to_thread.run_sync(http_get, str(home.socket), "\r\n".join([*lines, "", ""]))
    assert status == 200
    return parsed(text)
