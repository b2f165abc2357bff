"""A session of `requests` whose connections go to a Unix socket, whatever host an address names."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import requests
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection
from urllib3.connectionpool import HTTPConnectionPool

TIMEOUT_S = 10.0


def unix_session(path: Path) -> requests.Session:
    """A session that keeps no connection: each request opens one."""

    class Connection(HTTPConnection):
        def connect(self) -> None:
            self.sock = socket.socket(socket.AF_UNIX)
            self.sock.settimeout(TIMEOUT_S)
            self.sock.connect(str(path))

    class Pool(HTTPConnectionPool):
        ConnectionCls = Connection  # pyright: ignore[reportAssignmentType]  # urllib3's own is no such protocol either

    class Adapter(HTTPAdapter):
        def get_connection_with_tls_context(self, *_: Any, **__: Any) -> HTTPConnectionPool:
            return Pool("node", maxsize=1)

    session = requests.Session()
    session.trust_env = False
    session.mount("http://", Adapter())
    session.headers["Connection"] = "close"
    return session
