"""One member's node of the benchmark `decide`: a real process, speaking JSON lines with the benchmark.

It is the product's service over libp2p (noise) with the SQLite store. Beside what a node answers it echoes: a
request that begins with `ECHO` is answered with as many bytes as it names, which is the floor of a decision.
"""

from __future__ import annotations

import json
import logging
import os
import ssl
import sys
import time
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import structlog
import trio

from benches.coalition import build, chains, intent, names
from comity.gossip.libp2p_transport import Libp2pTransport
from comity.gossip.transport import Peer
from comity.node.clock import SystemClock
from comity.node.core import Identity
from comity.node.metrics import Metrics
from comity.node.service import Service
from comity.node.store_sqlite import SqliteStore
from comity.node.watched_core import WatchedCore
from comity.node.watched_roads import WatchedTransport, watched_handler
from comity.node.worker import Worker
from comity.protocol.identifiers import sha256
from world import ENGINE

ECHO = b"ECHO"


def say(**what: Any) -> None:
    print(json.dumps(what), flush=True)


class BenchNode:
    """The node, and what the benchmark makes it do."""

    def __init__(self, index: int, members: int, directory: Path, chain_count: int) -> None:
        self.names = names(members)
        self.name = self.names[index]
        self.world = build(members)
        self.leaves: dict[str, list[bytes]] = {}
        organization = self.world[self.name]
        identity = Identity(self.name, f"spiffe://{self.name}/node/n1", organization.node)
        store = SqliteStore(directory / f"{index}.sqlite3")
        metrics = Metrics()
        metrics.time_commits(store)
        self.core = WatchedCore(metrics, identity, store, SystemClock(), ENGINE, (organization.epoch,))
        self.core.admit(self.world.common)
        leaves, records = chains(self.world, self.names[0], chain_count)
        self.leaves[self.names[0]] = leaves
        self.core.admit(records)
        self.core.drain()
        self.worker = Worker("judgement", metrics.call_seconds.observe)
        self.service = Service(self.core, self.worker)
        self.answer = watched_handler(self.service.handle_request, metrics)
        seed = sha256(f"seed {self.name}".encode())
        roads = Libp2pTransport(seed, ["/ip4/127.0.0.1/tcp/0"], self.handle, Random(index), security="noise")
        self.transport = WatchedTransport(roads, metrics)
        self.taken = 0

    async def handle(self, peer: str, payload: bytes) -> bytes:
        if payload.startswith(ECHO):
            return bytes(int.from_bytes(payload[4:8], "big"))
        return await self.answer(peer, payload)

    @property
    def others(self) -> list[str]:
        return [f"spiffe://{name}/node/n1" for name in self.names if name != self.name]

    async def echo_round(self, sizes: tuple[int, int], quorum: int) -> float:
        """Ask everybody for an echo; the time until quorum-1 have answered. Ends when all have."""
        payload = ECHO + sizes[1].to_bytes(4, "big") + bytes(max(sizes[0] - 8, 0))
        done = trio.Event()
        left = quorum - 1
        began = time.perf_counter()
        took = 0.0

        async def one(peer: str) -> None:
            nonlocal left, took
            await self.transport.request(peer, payload, timeout_s=10)
            left -= 1
            if left == 0:
                took = time.perf_counter() - began
                done.set()

        async with trio.open_nursery() as nursery:
            for peer in self.others:
                nursery.start_soon(one, peer)
        await done.wait()
        return took

    async def decide(self, number: int, label: str) -> float:
        """File one intent; the time until its permit is stored and known."""
        leaf = self.leaves[self.name][number]
        record = intent(self.world, self.name, leaf, number, label)
        changed = self.service.changed(record.id)
        began = time.perf_counter()
        await self.service.call(partial(self.core.file, record, ()))
        await changed.wait()
        took = time.perf_counter() - began
        pursuit = self.core.requester.pursuit(record.id)
        if pursuit is None or pursuit.standing != "permitted":
            why = pursuit.causes if pursuit else "no such intent"
            raise SystemExit(
                f"not permitted: {pursuit.standing if pursuit else ''} {why} {pursuit and pursuit.declined}"
            )
        await self.service.idle()
        return took

    def sizes(self) -> tuple[int, int]:
        """Bytes of one ask frame and of one vote frame, as they were sent last."""
        from comity.protocol.frames import AskFrame, VoteFrame, encode_frame

        pursuit = self.core.requester.pursuits()[-1]
        if pursuit.ask is None:
            raise SystemExit("nothing was asked")
        ask = AskFrame(ask=pursuit.ask.record.encoded(), records=tuple(r.encoded() for r in pursuit.attached))
        vote = next(iter(pursuit.votes.values()))
        return len(encode_frame(ask)), len(encode_frame(VoteFrame(vote=vote.record.encoded())))

    async def latency(self, rounds: int, first: int, quorum: int) -> dict[str, Any]:
        """Decisions and echoes by turns."""
        for number in range(first, first + 10):
            await self.decide(number, "warm")
        sizes = self.sizes()
        for _ in range(10):
            await self.echo_round(sizes, quorum)
        decided: list[float] = []
        echoed: list[float] = []
        for number in range(first + 10, first + 10 + rounds):
            decided.append(await self.decide(number, "lat"))
            echoed.append(await self.echo_round(sizes, quorum))
        return {"decide": decided, "echo": echoed, "sizes": sizes}

    async def many(self, count: int, first: int, at_once: int, quorum: int) -> dict[str, float]:
        """Decisions per second with several under way, and echoes likewise."""
        sizes = self.sizes()
        waiting = list(range(first, first + count))

        async def decider() -> None:
            while waiting:
                await self.decide_without_end(waiting.pop())

        began = time.perf_counter()
        async with trio.open_nursery() as nursery:
            for _ in range(at_once):
                nursery.start_soon(decider)
        decided = count / (time.perf_counter() - began)
        left = list(range(count))

        async def echoer() -> None:
            while left:
                left.pop()
                await self.echo_round(sizes, quorum)

        began = time.perf_counter()
        async with trio.open_nursery() as nursery:
            for _ in range(at_once):
                nursery.start_soon(echoer)
        return {"decide": decided, "echo": count / (time.perf_counter() - began)}

    async def decide_without_end(self, number: int) -> None:
        leaf = self.leaves[self.name][number]
        record = intent(self.world, self.name, leaf, number, "many")
        changed = self.service.changed(record.id)
        await self.service.call(partial(self.core.file, record, ()))
        await changed.wait()

    async def echoes(self, count: int, quorum: int) -> None:
        sizes = self.sizes()
        for _ in range(count):
            await self.echo_round(sizes, quorum)

    async def tls_rounds(self, ports: list[int], rounds: int, quorum: int) -> list[float]:
        """The same fan-out over plain trio TLS connections to echo servers in the other processes."""
        sizes = self.sizes()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        streams = []
        for port in ports:
            tcp = await trio.open_tcp_stream("127.0.0.1", port)
            streams.append(trio.SSLStream(tcp, context, server_hostname="localhost"))
        payload = sizes[0].to_bytes(4, "big") + sizes[1].to_bytes(4, "big") + bytes(sizes[0])
        times: list[float] = []
        for _ in range(rounds):
            left = quorum - 1
            began = time.perf_counter()
            took = 0.0

            async def one(stream: trio.SSLStream[trio.SocketStream], began: float = began) -> None:
                nonlocal left, took
                await stream.send_all(payload)
                await _receive(stream, sizes[1])
                left -= 1
                if left == 0:
                    took = time.perf_counter() - began

            async with trio.open_nursery() as nursery:
                for stream in streams:
                    nursery.start_soon(one, stream)
            times.append(took)
        return times


async def _receive(stream: trio.abc.ReceiveStream, size: int) -> bytes:
    data = b""
    while len(data) < size:
        more = await stream.receive_some(size - len(data))
        if not more:
            raise SystemExit("the echo server has gone")
        data += more
    return data


async def serve_tls(certificate: str, task_status: trio.TaskStatus[int] = trio.TASK_STATUS_IGNORED) -> None:
    """The plain echo server of the comparison with TLS."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)

    async def serve(tcp: trio.SocketStream) -> None:
        stream = trio.SSLStream(tcp, context, server_side=True)
        try:
            while True:
                head = await _receive(stream, 8)
                await _receive(stream, int.from_bytes(head[:4], "big"))
                await stream.send_all(bytes(int.from_bytes(head[4:], "big")))
        except (trio.BrokenResourceError, trio.ClosedResourceError, SystemExit):
            return

    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(partial(trio.serve_tcp, serve, 0, host="127.0.0.1"))
        task_status.started(listeners[0].socket.getsockname()[1])


async def main() -> None:
    # Standard output belongs to the benchmark.
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
    index, members, directory, chain_count, certificate = (
        int(sys.argv[1]),
        int(sys.argv[2]),
        Path(sys.argv[3]),
        int(sys.argv[4]),
        sys.argv[5],
    )
    node = BenchNode(index, members, directory, chain_count)
    async with trio.open_nursery() as nursery:
        await nursery.start(node.transport.run)
        port = await nursery.start(serve_tls, certificate)
        say(ready=index, addresses=node.transport.addresses, key=_public(node).hex(), tls=port)
        lines = trio.wrap_file(sys.stdin)
        async for line in lines:
            command = json.loads(line)
            match command.pop("do"):
                case "peers":
                    node.transport.set_peers(
                        [
                            Peer(p["name"], bytes.fromhex(p["key"]), tuple(p["addresses"]))
                            for p in command["peers"]
                        ]
                    )
                    await nursery.start(node.service.run, node.transport)
                    events = node.transport.subscribe()
                    while len(node.transport.connected()) < members - 1:
                        await events.receive()
                    say(connected=index)
                case "latency":
                    say(**await node.latency(**command))
                case "many":
                    say(**await node.many(**command))
                case "echoes":
                    await node.echoes(**command)
                    say(done=True)
                case "tls":
                    say(times=await node.tls_rounds(**command))
                case "cpu":
                    say(cpu=time.process_time())
                case "quit":
                    break
                case other:
                    say(unknown=other)
        nursery.cancel_scope.cancel()
    node.worker.close()
    node.core.store.close()


def _public(node: BenchNode) -> bytes:
    import nacl.bindings

    return nacl.bindings.crypto_sign_seed_keypair(sha256(f"seed {node.name}".encode()))[0]


if __name__ == "__main__":
    os.environ.setdefault("PY_YAMUX_RELEASE_ON_READ", "0")
    trio.run(main)
