"""A program that runs a node as `comity node start` does, and ends it by SIGKILL at a boundary that a file names.

    python mortal_node.py

reads lines of JSON from its standard input: `{"home": FOLDER}`. For each it forks a process that runs the node of that
home, over the product's SQLite store and libp2p, and prints a line as the node is ready, and one as it has ended. What
is imported, is imported once.

Around the store and the transport, which are arguments of `run_node`, lies what counts nothing and changes nothing: it
looks whether the file `dies` in the home names what is about to take effect, or just did, and kills the process there.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections import Counter
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from random import Random
from typing import Any

import trio

from comity.gossip.libp2p_transport import Libp2pTransport
from comity.gossip.transport import Handler
from comity.node.home import Home
from comity.node.log_lines import configure_log
from comity.node.run import House, Ready, read_house, run_node
from comity.node.store_sqlite import SqliteStore
from comity.protocol.envelope import SignedRecord
from comity.protocol.errors import DecodeError
from comity.protocol.frames import AskFrame, decode_request

COMMITS = ("ask", "vote", "permit", "start", "actuation")
"""What a requester commits on its way, each with what it rests on: an ask with its intent, a permit with its votes."""


def doom(home: Path) -> Path:
    """The file that names the boundary."""
    return home / "dies"


class Doom:
    """Whether the process ends here."""

    def __init__(self, home: Path) -> None:
        self._file = doom(home)

    def at(self, boundary: str) -> None:
        try:
            named = self._file.read_text()
        except FileNotFoundError:
            return
        if named == boundary:
            self._file.unlink()
            os.kill(os.getpid(), signal.SIGKILL)


class MortalStore(SqliteStore):
    """The product's store, with a boundary before and after each commit."""

    def __init__(self, path: Path, fate: Doom) -> None:
        self._fate = fate
        self._kinds: set[str] = set()
        self._depth_of_batches = 0
        super().__init__(path)

    @contextmanager
    def batch(self, *, durable: bool = False) -> Generator[None, None, None]:
        outermost = not self._depth_of_batches
        self._depth_of_batches += 1
        try:
            with super().batch(durable=durable):
                yield
                if outermost:
                    self._pass("before")
        finally:
            self._depth_of_batches -= 1
        if outermost:
            self._pass("after")
            self._kinds.clear()

    def _pass(self, when: str) -> None:
        for kind in COMMITS:
            if kind in self._kinds:
                self._fate.at(f"{when} the commit of {kind}")

    def _put(self, record: SignedRecord, *, own: bool) -> tuple[int, bool]:
        if own or record.header.kind == "vote":
            self._kinds.add(record.header.kind)
        return super()._put(record, own=own)


class MortalTransport(Libp2pTransport):
    """The product's transport, with a boundary before each ask that leaves, and after each answer that comes."""

    fate: Doom
    sent: Counter[bytes]
    answered: Counter[bytes]

    async def request(self, peer: str, payload: bytes, *, timeout_s: float) -> bytes:
        if not is_ask(payload):
            return await super().request(peer, payload, timeout_s=timeout_s)
        # To each member goes the same frame, and each ask has one of its own.
        self.sent[payload] += 1
        self.fate.at(f"before ask {self.sent[payload]}")
        answer = await super().request(peer, payload, timeout_s=timeout_s)
        self.answered[payload] += 1
        self.fate.at(f"after answer {self.answered[payload]}")
        return answer


def is_ask(payload: bytes) -> bool:
    try:
        return isinstance(decode_request(payload), AskFrame)
    except DecodeError:
        return False


def say(**what: Any) -> None:
    os.write(1, json.dumps(what).encode() + b"\n")


def live(home: Path) -> None:
    """One life of the node."""
    fate = Doom(home)

    def transport(house: House, handler: Handler) -> MortalTransport:
        async def handle(peer: str, payload: bytes) -> bytes:
            answer = await handler(peer, payload)
            if is_ask(payload):
                fate.at("before the answer")
            return answer

        made = MortalTransport(
            house.transport_seed,
            (house.config.listen,),
            handle,
            Random(),
            security=house.config.security,
        )
        made.fate, made.sent, made.answered = fate, Counter(), Counter()
        return made

    def ready(said: Ready) -> None:
        say(ready=os.getpid(), **{k: str(v) for k, v in asdict(said).items()})

    house = read_house(Home(home))
    configure_log(house.config.log_level, (home / "log").open("a", encoding="utf-8"))

    async def run() -> None:
        await run_node(
            house,
            ready=ready,
            make_store=lambda path: MortalStore(path, fate),
            make_transport=transport,
        )

    trio.run(run)


def main() -> None:
    for line in sys.stdin:
        home = Path(json.loads(line)["home"])
        child = os.fork()
        if not child:
            try:
                live(home)
            finally:
                os._exit(0)
        say(ended=os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))


if __name__ == "__main__":
    main()
