"""Addresses as people write them, `host:port`, and as the network names them, `/ip4/192.0.2.7/tcp/4001`."""

from __future__ import annotations

import ipaddress
import re
from typing import Final
from urllib.parse import urlsplit

FORM: Final = "host:port, or /ip4|ip6|dns|dns4|dns6/HOST/tcp/PORT"
LOOPBACK_FORM: Final = "127.0.0.1:PORT or [::1]:PORT: programs on other machines never reach it"
WEBHOOK_FORM: Final = "https://HOST/PATH; http only to 127.0.0.1, ::1 or localhost; no user and no # in it"
URL_BYTES_MAX: Final = 2_048
PORT_MAX: Final = 65_535
ADDRESSES_MAX: Final = 8
"""Addresses of one node: each costs whoever dials it a time-out."""
_PLAIN: Final = re.compile(r"(?:\[([0-9A-Fa-f:.]{2,45})\]|([^:/\[\]]{1,253})):(0|[1-9][0-9]{0,4})")
_MULTI: Final = re.compile(r"/(ip4|ip6|dns|dns4|dns6)/([^/]{1,253})/tcp/(0|[1-9][0-9]{0,4})")
_HOST_LABEL: Final = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?")


def listen_address(text: str) -> str:
    """The multiaddress to listen at. Port 0 lets the system choose one.

    Raises:
        ValueError: not an address; the message says what is allowed.
    """
    plain = _PLAIN.fullmatch(text)
    if plain is not None:
        host, port = plain[1] or plain[2], plain[3]
        kind = _kind_of(host)
    else:
        multi = _MULTI.fullmatch(text)
        if multi is None:
            raise ValueError(f"{text!r} is not an address: {FORM}")
        kind, host, port = multi[1], multi[2], multi[3]
    if int(port) > PORT_MAX:
        raise ValueError(f"{text!r}: a port is at most {PORT_MAX}")
    if not _is_host(kind, host):
        known = "neither an IP address nor a host name" if plain is not None else f"not a host of kind {kind}"
        raise ValueError(f"{text!r}: {host!r} is {known}")
    return f"/{kind}/{host}/tcp/{port}"


def dial_address(text: str) -> str:
    """The multiaddress to dial.

    Raises:
        ValueError: not an address, or one without a port.
    """
    address = listen_address(text)
    if address.endswith("/tcp/0"):
        raise ValueError(f"{text!r}: nobody can be reached at port 0")
    return address


def loopback_address(text: str) -> str:
    """The same `host:port`, on an address that only this machine reaches.

    Raises:
        ValueError: not an address, or one that other machines may reach.
    """
    plain = _PLAIN.fullmatch(text)
    if plain is None or int(plain[3]) > PORT_MAX:
        raise ValueError(f"{text!r} is not an address")
    # What is no number raises ValueError, too: a name may stand for any machine.
    if not ipaddress.ip_address(plain[1] or plain[2]).is_loopback:
        raise ValueError(f"{text!r} is not on the loopback")
    return text


def webhook_url(text: str) -> str:
    """The same URL, one that may be told what concerns people.

    Raises:
        ValueError: it is none, or what is told would travel in the clear to another machine.
    """
    if (
        len(text.encode(errors="surrogatepass")) > URL_BYTES_MAX
        or not text.isascii()
        or not text.isprintable()
    ):
        raise ValueError("it is too long, or has characters that no URL has")
    parts = urlsplit(text)
    if parts.username is not None or parts.password is not None or parts.fragment or " " in text:
        raise ValueError(f"{text!r:.80}: a user, a password, a blank or a # stands in it")
    host = parts.hostname or ""
    if parts.scheme not in ("http", "https") or not host or parts.port == 0:
        raise ValueError(f"{text!r:.80} is no URL of http or https")
    if parts.scheme == "http" and host != "localhost" and not _is_loopback(host):
        raise ValueError(f"{text!r:.80}: by http what is told would be read on the way")
    return text


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def host_and_port(text: str) -> tuple[str, int]:
    """The parts of a `host:port` that was checked.

    Raises:
        ValueError: it was not.
    """
    plain = _PLAIN.fullmatch(text)
    if plain is None:
        raise ValueError(f"{text!r} is not an address")
    return plain[1] or plain[2], int(plain[3])


def _kind_of(host: str) -> str:
    try:
        return f"ip{ipaddress.ip_address(host).version}"
    except ValueError:
        return "dns"


def _is_host(kind: str, host: str) -> bool:
    if not kind.startswith("dns"):
        return _kind_of(host) == kind
    labels = host.split(".")
    # A last label of digits is an IPv4 address that somebody mistyped.
    return all(_HOST_LABEL.fullmatch(label) for label in labels) and not labels[-1].isdigit()
