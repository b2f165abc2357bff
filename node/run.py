"""The composition root: from a home to a running node.

Everything that a node is made of is put together here and nowhere else. `run_node` takes its clock, store and
transport as arguments where a test wants others.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any, Final, cast

import msgspec
import structlog
import trio

from comity import __version__
from comity.attestation.authoring import Author
from comity.attestation.engine import engine_id
from comity.attestation.signing import SigningKey
from comity.attestation.toml_text import date_of
from comity.gossip.gossip import topic_of
from comity.gossip.transport import Handler
from comity.node.attendance import Attendance
from comity.node.authors import salt_key_of
from comity.node.clock import Clock, SystemClock
from comity.node.coalition_file import CoalitionFile, read_coalition
from comity.node.coalitions import certificate_for, epoch_of
from comity.node.config import Config, read_config
from comity.node.core import Core, Identity
from comity.node.gossiping import Gossiping
from comity.node.home import NODE_KEY, TRANSPORT_KEY, Home
from comity.node.home_coalition import Learned, bring_up_to_date
from comity.node.keystore import load_seed
from comity.node.metrics import Metrics
from comity.node.metrics_facts import Facts
from comity.node.notify_secret import read_secret
from comity.node.owner_files import write_file
from comity.node.readiness import Readiness
from comity.node.service import Service, peers_from
from comity.node.socket_server import serve_on_socket
from comity.node.store import Store
from comity.node.tokens import read_tokens
from comity.node.views import governed
from comity.node.watch import Watch
from comity.node.watched_core import WatchedCore
from comity.node.watched_roads import RunningTransport, WatchedTransport, watched_handler
from comity.node.worker import Worker
from comity.protocol.envelope import SignedRecord
from comity.protocol.errors import ComityError, ConfigError, VerificationError
from comity.protocol.limits import ASK_AHEAD_S
from comity.protocol.records import decode_body

if TYPE_CHECKING:
    from comity.node.page import Page

log = structlog.get_logger("comity.node")


FOLLOW_EVERY_S: Final = 60.0
"""Certificates begin and end, and suspensions end, to the minute."""


@dataclass(frozen=True, slots=True)
class House:
    """All that a home holds and a node needs. Secrets stand in no repr."""

    home: Home
    config: Config
    file: CoalitionFile
    node_seed: bytes = field(repr=False)
    transport_seed: bytes = field(repr=False)
    tokens: dict[str, bytes] = field(repr=False)
    notify_secret: bytes = field(default=b"", repr=False)


@dataclass(frozen=True, slots=True)
class Ready:
    """What a node says once it answers."""

    member: str
    node: str
    coalition: str
    epoch: int
    addresses: tuple[str, ...]
    socket: Path


MakeTransport = Callable[[House, Handler], RunningTransport]
MakeStore = Callable[[Path], Store]


def read_house(home: Home) -> House:
    """Read a home.

    Raises:
        ConfigError: something is missing, malformed, or readable by others; the message says what to do.
    """
    home.require_private()
    config = read_config(home.config)
    if not home.coalition.exists():
        raise ConfigError(
            f"{home.path} belongs to no coalition yet: found one with `comity coalition new`, or join one with"
            " `comity coalition join FILE`"
        )
    return House(
        home=home,
        config=config,
        file=read_coalition(home.coalition),
        node_seed=load_seed(home.key(NODE_KEY)),
        transport_seed=load_seed(home.key(TRANSPORT_KEY)),
        tokens=read_tokens(home),
        notify_secret=read_secret(home.path, config.notify_secret_file),
    )


def libp2p_transport(house: House, handler: Handler) -> RunningTransport:
    """The real network. Importing it takes seconds, so that happens here."""
    from comity.gossip.libp2p_gossip import GossipSettings
    from comity.gossip.libp2p_transport import Libp2pTransport
    from comity.node.log_lines import rejoin_libp2p

    rejoin_libp2p(house.config.log_level)
    # It spreads redialling and decides nothing else.
    rng = Random()  # noqa: S311
    gossip = None
    if house.config.gossip and house.file.coalition is not None:
        gossip = GossipSettings(topic_of(house.file.coalition), int(SystemClock().seconds() * 1e9))
    return Libp2pTransport(
        house.transport_seed,
        (house.config.listen,),
        handler,
        rng,
        security=house.config.security,
        gossip=gossip,
    )


def sqlite_store(path: Path) -> Store:
    from comity.node.store_sqlite import SqliteStore

    return SqliteStore(path)


async def run_node(
    house: House,
    *,
    ready: Callable[[Ready], None],
    clock: Clock | None = None,
    make_store: MakeStore = sqlite_store,
    make_transport: MakeTransport = libp2p_transport,
    stop: trio.Event | None = None,
    readiness: Readiness | None = None,
) -> None:
    """Run a node until it is asked to stop: by a signal, or by `stop` where that is given.

    Args:
        readiness: the road to the service manager that started it; without one nobody is told.

    Raises:
        ConfigError: it cannot begin: the port or the socket is in use, the clock is wrong, a key does not fit.
        StoreError: the disk failed, or another process holds the store.
    """
    try:
        told = readiness or Readiness()
        await _run(house, ready, clock or SystemClock(), make_store, make_transport, stop, told)
    except BaseExceptionGroup as group:
        ours = _first(group)
        if ours is None:
            raise
        raise ours from group


def _first(group: BaseExceptionGroup[Any]) -> ComityError | None:
    """The error that ended a node, where all that failed are errors of ours."""
    found, rest = group.split(ComityError)
    if found is None or (rest is not None and rest.split(trio.Cancelled)[1] is not None):
        return None
    ended: BaseException = found
    while isinstance(ended, BaseExceptionGroup):
        ended = cast("BaseExceptionGroup[BaseException]", ended).exceptions[0]
    return ended if isinstance(ended, ComityError) else None


async def _run(
    house: House,
    ready: Callable[[Ready], None],
    clock: Clock,
    make_store: MakeStore,
    make_transport: MakeTransport,
    stop: trio.Event | None,
    readiness: Readiness,
) -> None:
    metrics = Metrics()
    worker = Worker(f"comity {house.config.member}", metrics.call_seconds.observe)
    opened: list[Store] = []

    def build() -> Core:
        opened.append(make_store(house.config.store_path(house.home.path)))
        metrics.time_commits(opened[0])
        return build_core(house, opened[0], clock, metrics)

    try:
        core = await worker.run(build)
        service = Service(core, worker)
        handler = watched_handler(service.handle_request, metrics)
        transport = WatchedTransport(make_transport(house, handler), metrics)
        facts = Facts(
            metrics,
            service,
            store=house.config.store_path(house.home.path),
            queue=lambda: worker.waiting,
            known=lambda: transport.known,
        )
        async with trio.open_nursery() as nursery:
            surroundings = _Surroundings(house, core, service, transport, Attendance(clock), facts)
            nursery.start_soon(surroundings.attendance.watch, transport)
            await surroundings.refresh()
            await nursery.start(transport.run)
            await nursery.start(service.run, transport)
            if transport.gossip is not None and house.config.gossip:
                await nursery.start(Gossiping(service, transport.gossip).run)
            await nursery.start(surroundings.serve)
            if house.config.metrics_listen:
                await nursery.start(surroundings.serve_metrics)
            nursery.start_soon(surroundings.watch.run)
            if house.config.notify_webhook:
                nursery.start_soon(surroundings.notify)
            if house.config.page_listen:
                await nursery.start(surroundings.serve_page)
            nursery.start_soon(surroundings.follow)
            said = surroundings.ready()
            log.info(
                "node_ready", node=said.node, coalition=said.coalition, epoch=said.epoch, version=__version__
            )
            ready(said)
            readiness.ready(f"{said.node} serves epoch {said.epoch}")
            nursery.start_soon(readiness.watch)
            await _stopped(stop)
            readiness.stopping()
            log.info("node_stopping")
            nursery.cancel_scope.cancel()
    finally:
        for store in opened:
            await worker.run(store.close)
        worker.close()
        log.info("node_stopped", node=house.config.node)


def build_core(house: House, store: Store, clock: Clock, metrics: Metrics | None = None) -> Core:
    """The node's machines over its store, with all that the coalition file says. Runs in the worker's thread.

    Raises:
        ConfigError: file, store, keys and clock do not fit each other.
    """
    config, file = house.config, house.file
    signer = SigningKey.from_seed(house.node_seed)
    coalition = file.coalition
    if coalition is None or not file.epochs:
        raise ConfigError(f"{house.home.coalition}: the coalition is not founded yet")
    epochs = _epochs(file, store.of_kind("epoch", coalition=coalition))
    certificates = [
        *file.of_kind("node_certificate"),
        *store.of_kind("node_certificate", coalition=coalition, member=config.member),
    ]
    certificate = certificate_for(certificates, config.node, signer.public)
    if certificate is None:
        raise ConfigError(
            f"no certificate for {config.node} and the key in {house.home.key(NODE_KEY)}:"
            " `comity coalition sign FILE` makes one, `comity coalition join FILE` brings it here"
        )
    _require_time(clock.now(), certificate, epochs)
    author = Author(config.member, signer, salt_key_of(house.node_seed), certificate.id, coalition)
    store.put(epochs, durable=True)
    try:
        identity = Identity(config.member, config.node, author)
        core = WatchedCore(metrics or Metrics(), identity, store, clock, engine_id(), epochs, catches_up=True)
    except VerificationError as exc:
        raise ConfigError(f"{house.home.coalition} does not verify: {exc}") from exc
    admission = core.admit(record for record in file.records if record.header.kind != "epoch")
    if admission.rejected:
        raise ConfigError(f"{house.home.coalition} does not verify: {admission.rejected[0][1]}")
    if config.member not in core.holdings.epoch.members:
        raise ConfigError(f"{config.member} is no member of epoch {core.holdings.epoch.number}")
    core.resume()
    return core


def _epochs(file: CoalitionFile, stored: Sequence[SignedRecord]) -> tuple[SignedRecord, ...]:
    """The chain of the file, continued by what the store has learned since."""
    known = {record.header.number: record for record in stored}
    for record in file.epochs:
        held = known.setdefault(record.header.number, record)
        if held.id != record.id:
            raise ConfigError(
                f"the store knows another epoch {record.header.number} than the coalition file: one of the two"
                " is of another coalition, or was tampered with"
            )
    chain: list[SignedRecord] = []
    while len(chain) in known:
        chain.append(known[len(chain)])
    return tuple(chain)


def _require_time(now: int, certificate: SignedRecord, epochs: tuple[SignedRecord, ...]) -> None:
    """Check the clock against what was signed: with a wrong one no vote of this node counts."""
    body: Any = decode_body(certificate)
    if not body.not_before <= now < body.not_after:
        raise ConfigError(
            f"it is {date_of(now)} by this machine's clock, and this node's certificate holds from"
            f" {date_of(body.not_before)} to {date_of(body.not_after)}: set the clock, or have the organization"
            " sign a new certificate with `comity coalition sign`"
        )
    # A later epoch that has not begun is waited for; before the first there is no coalition.
    started = epoch_of(epochs[0]).started
    if now < started - ASK_AHEAD_S:
        raise ConfigError(
            f"it is {date_of(now)} by this machine's clock, before epoch 0 was signed ({date_of(started)}):"
            " set the clock"
        )


@dataclass
class _Surroundings:
    """What changes while a node runs: its peers, and what is written for programs beside it."""

    house: House
    core: Core
    service: Service
    transport: RunningTransport
    attendance: Attendance
    facts: Facts
    _governed: Any = None

    def ready(self) -> Ready:
        epoch = self.core.holdings.epoch
        config, home = self.house.config, self.house.home
        return Ready(
            member=config.member,
            node=config.node,
            coalition=self.core.coalition.hex(),
            epoch=epoch.number,
            addresses=self.listens(),
            socket=home.socket.absolute(),
        )

    def listens(self) -> tuple[str, ...]:
        return self.transport.addresses

    def addresses(self) -> dict[str, tuple[str, ...]]:
        """Node name to addresses: by the newest coalition file, and before that by the settings."""
        file = self.house.file
        try:
            file = read_coalition(self.house.home.coalition)
        except ConfigError as exc:
            # It was sound when the node began; what it says now can wait until somebody mends it.
            log.warning("coalition_file_unreadable", detail=str(exc))
        listed = {node.node: node.addresses for entry in file.members for node in entry.nodes}
        return listed | dict(self.house.config.peers)

    async def refresh(self) -> None:
        """Take the peers from the certificates in force, and write down what is governed."""
        addresses = self.addresses()
        peers = await self.service.call(lambda: peers_from(self.core, addresses))
        try:
            self.transport.set_peers(peers)
        except ConfigError as exc:
            # Whoever was a peer before stays one.
            log.warning("peers_unusable", detail=str(exc))
        said = await self.service.call(lambda: governed(self.core))
        if said is not None and said != self._governed:
            write_file(self.house.home.governed, msgspec.json.encode(said))
            self._governed = said
        await self._keep_coalition()

    async def _keep_coalition(self) -> None:
        """Write an epoch that others told of into the home, so that nothing there is older than what is decided by."""
        learned = await self.service.call(lambda: Learned.by(self.core))
        if learned is None:
            return
        try:
            if bring_up_to_date(self.house.home, learned):
                log.info("coalition_written", epoch=len(learned.epochs) - 1)
        except ConfigError as exc:
            # It decides by what it holds; the files are for people, and for a next start that the store completes.
            log.warning("coalition_not_written", detail=str(exc))

    async def follow(self) -> None:
        """Refresh whenever an epoch, a certificate or a policy arrives, and as time begins and ends them."""
        while True:
            changed = self.service.governance_changed()
            await self.refresh()
            with trio.move_on_after(FOLLOW_EVERY_S):
                await changed.wait()

    async def serve(self, *, task_status: trio.TaskStatus[list[str]]) -> None:
        """Serve the local API."""
        from comity.node.api import Surroundings, create_app

        around = Surroundings(
            self.house.config,
            self.house.tokens,
            self.addresses,
            self.listens,
            self.attendance.seen,
            self.facts,
            self.page.link,
        )
        app = create_app(self.service, around)
        await serve_on_socket(app, self.house.home.socket, task_status=task_status)

    @cached_property
    def page(self) -> Page:
        """The people's page, whether it is served or not."""
        from comity.node.page import Page

        return Page(self.service, self.watch, self.listens, self.attendance.seen, self.facts.count_request)

    @cached_property
    def watch(self) -> Watch:
        """Who looks whether something is new, as long as somebody wants to know."""
        return Watch(self.service)

    async def serve_page(self, *, task_status: trio.TaskStatus[None]) -> None:
        """Serve the people's page on its port."""
        async with trio.open_nursery() as nursery:
            host, port = await nursery.start(self.page.serve, self.house.config.page_listen)
            log.info("page_served", host=host, port=port)
            task_status.started()

    async def notify(self) -> None:
        """Tell a webhook what waits for people, and what came of it."""
        from comity.node.notifications import Notifier
        from comity.node.webhook import Webhook

        config = self.house.config
        webhook = Webhook(config.notify_webhook, self.house.notify_secret, self.facts.count_notification)
        notifier = Notifier(self.service, self.watch, config, lambda: self.page.address)
        await notifier.run(webhook)

    async def serve_metrics(self, *, task_status: trio.TaskStatus[None]) -> None:
        """Serve the metrics on their port."""
        from comity.node.api_metrics import serve_metrics

        async with trio.open_nursery() as nursery:
            where = self.house.config.metrics_listen
            host, port = await nursery.start(serve_metrics, self.facts, where)
            log.info("metrics_served", host=host, port=port)
            task_status.started()


async def _stopped(stop: trio.Event | None) -> None:
    if stop is not None:
        await stop.wait()
        return
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async for number in signals:
            log.info("signal", signal=signal.Signals(number).name)
            return
