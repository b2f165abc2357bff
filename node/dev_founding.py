"""The three throw-away organizations: their homes, their coalition, who may do what in it, and a first decision.

What three organizations would do with the commands, each at its own place, is done here by one hand. It is no model
for real ones: there, nobody but the organization itself has its key.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterable, Sequence
from typing import Final

from comity.node.cards import Card, read_card
from comity.node.client import ActuationForm, NodeClient, OutputForm, StartForm, StepAnswer, StepForm
from comity.node.coalition_file import CoalitionFile, write_coalition
from comity.node.coalitions import NamedPolicy, draft_genesis, require_joinable, sign_draft
from comity.node.config import read_config
from comity.node.credentialing import Wish, issued
from comity.node.dev import (
    AUTHORITY_CLASS,
    COALITION,
    OWNER_RULES,
    POLICY,
    PURPOSE,
    REALM,
    RULES,
    TAXONOMY,
    DevFolder,
    DevMember,
)
from comity.node.governance_files import read_policies, read_taxonomy
from comity.node.home_coalition import keep_coalition
from comity.node.node_home import NewHome, make_home
from comity.node.owner_files import PUBLIC, write_file
from comity.node.publications import owner_policy_record
from comity.node.signing_hand import Hand, now, passphrase_from
from comity.protocol.envelope import SignedRecord
from comity.protocol.errors import ConfigError
from comity.protocol.identifiers import sha256

DAYS: Final = 365
"""How long credentials and consents hold: as long as the certificates of the nodes."""
LOOPBACK: Final = "127.0.0.1"
FIRST_ASSET: Final = "hello"
FIRST_WAIT_S: Final = 30.0
"""For the first decision, by nodes that are connected and vote."""


def found(folder: DevFolder) -> CoalitionFile:
    """Make the homes of the three, and found their coalition.

    Raises:
        ConfigError: something cannot be written, or there is no free port.
    """
    folder.make()
    site = {
        "taxonomy.toml": TAXONOMY,
        "policy.toml": POLICY,
        "policy.cedar": RULES,
        "owner.cedar": OWNER_RULES,
    }
    for name, text in site.items():
        write_file(folder.site / name, text.encode(), mode=PUBLIC)
    cards = _make_homes(folder.members)
    policies = [NamedPolicy(s.name, s.policy) for s in read_policies([folder.site / "policy.toml"])]
    taxonomy = read_taxonomy(folder.site / "taxonomy.toml")
    drafter = _hand(folder.first).organization(None, None)
    file = draft_genesis(COALITION, cards, taxonomy, policies, drafter, now())
    for each, card in zip(folder.members, cards, strict=True):
        file = sign_draft(file, _hand(each).organization(None, file.coalition), card, now(), days=DAYS)
    for each, card in zip(folder.members, cards, strict=True):
        require_joinable(file, card, now())
        keep_coalition(each.home, file)
    write_coalition(folder.coalition, file)
    return file


def _make_homes(members: Sequence[DevMember]) -> list[Card]:
    cards: list[Card] = []
    for each, port in zip(members, free_ports(len(members)), strict=True):
        wanted = NewHome(member=each.member, node="n1", listen=f"/ip4/{LOOPBACK}/tcp/{port}", purpose=PURPOSE)
        make_home(each.home, wanted, passphrase_from(None))
        cards.append(read_card(each.home.card))
    return cards


def free_ports(count: int) -> list[int]:
    """Ports of this machine's loopback that nobody listens on at this moment.

    Raises:
        ConfigError: the system has none.
    """
    try:
        with contextlib.ExitStack() as stack:
            sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
            for each in sockets:
                each.bind((LOOPBACK, 0))
            return [int(each.getsockname()[1]) for each in sockets]
    except OSError as exc:
        raise ConfigError(f"no free port on {LOOPBACK}: {exc.strerror}") from exc


def require_free_port(port: int, remedy: str) -> None:
    """Check that nobody listens on a port of the loopback.

    Raises:
        ConfigError: somebody does, or it may not be used.
    """
    with socket.socket() as tried:
        # As servers do: what a connection of before has left is in nobody's way.
        tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            tried.bind((LOOPBACK, port))
        except OSError as exc:
            raise ConfigError(f"port {port} of {LOOPBACK} cannot be used ({exc.strerror}): {remedy}") from exc


def require_resumable(folder: DevFolder) -> None:
    """Check that the nodes of a folder that was made before can start.

    Raises:
        ConfigError: a home is damaged, or a port of theirs is in use, as where they run already.
    """
    for each in folder.members:
        config = read_config(each.home.config)
        if config.member != each.member:
            raise ConfigError(f"{each.home.path} is the home of {config.member}, not of {each.member}")
        listen = config.listen
        remedy = f"is `comity dev` running in {folder.path} already? Else `listen` in {each.home.config}"
        require_free_port(int(listen.rpartition("/")[2]), remedy)


def publish_authority(folder: DevFolder) -> None:
    """Give each member's automation a credential of this realm alone, and say how each consents to its data's use.

    Every node is told of every record, so that nothing waits for anti-entropy.

    Raises:
        NodeError: a node does not answer, or refuses a record.
    """
    records = [record for each in folder.members for record in _authority(folder, each)]
    for each in folder.members:
        _submit(each, records)


def _authority(folder: DevFolder, member: DevMember) -> tuple[SignedRecord, SignedRecord]:
    hand = _hand(member)
    wish = Wish(
        subject="automation/dagster",
        kind="automation",
        classes=(AUTHORITY_CLASS,),
        node_key=True,
        realms=(REALM,),
        days=DAYS,
    )
    credential, _ = issued(hand, wish)
    author = hand.organization(None, hand.coalition_id())
    consent = owner_policy_record(author, [f"*=standing:{DAYS}"], folder.site / "owner.cedar")
    return credential, consent


def _submit(member: DevMember, records: Iterable[SignedRecord]) -> None:
    client = NodeClient.of_home(member.home.path, "operator")
    for record in records:
        client.submit_record(record.encoded())


def make_first_asset(folder: DevFolder) -> StepAnswer:
    """Have the first member make one small file under a decision, as Dagster's steps do.

    Raises:
        NodeError: its node does not answer, or the work is not permitted.
        ConfigError: the file cannot be written.
    """
    client = NodeClient.of_home(folder.first.home.path, "bridge")
    content = b"Made under a decision of three organizations.\n"
    form = StepForm(
        orchestrator="comity",
        run="dev",
        step=FIRST_ASSET,
        job="dev",
        code=sha256(content).hex(),
        outputs=[OutputForm(FIRST_ASSET, media_type="text/plain")],
        purpose=PURPOSE,
        wait_s=FIRST_WAIT_S,
    )
    answer = client.submit_step(form)
    if answer.outcome != "execute":
        return answer
    (output,) = answer.outputs
    started = client.start(StartForm(answer.intent, output.asset))
    write_file(folder.assets / f"{FIRST_ASSET}.txt", content)
    client.actuate(
        ActuationForm(
            intent=answer.intent,
            start=started.start,
            asset=output.asset,
            digest=sha256(content).hex(),
            size=len(content),
            media_type="text/plain",
        )
    )
    return answer


def _hand(member: DevMember) -> Hand:
    return Hand(member.home, passphrase_from(None))
