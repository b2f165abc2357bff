"""What a node answers the nodes of others: votes, records, pages of its governance log. Functions of the core.

Spec: docs/spec/peer.md sections 4 to 6.
"""

from __future__ import annotations

from collections.abc import Iterable

from comity.attestation.voter import AskArrived
from comity.node.certificates import certificate_records
from comity.node.core import Core
from comity.node.heads import standing
from comity.node.portions import FRAME_RECORDS_BYTES_MAX, Brought, are_dear
from comity.protocol.envelope import SignedRecord, decode_record
from comity.protocol.errors import DecodeError
from comity.protocol.frames import (
    Answer,
    AskFrame,
    FeedFrame,
    FetchFrame,
    HeadFrame,
    OfferFrame,
    PageFrame,
    ProblemFrame,
    RecordsFrame,
    Request,
    VoteFrame,
    decode_request,
    encode_frame,
)
from comity.protocol.limits import PAGE_BYTES_MAX, PAGE_RECORDS_MAX


def answer_peer(core: Core, payload: bytes, peer: str = "", *, admitted: bool = False) -> bytes | Brought:
    """Answer one request of a peer, or say what is to be admitted before.

    Args:
        admitted: what it brings was admitted, as far as it can be.
    """
    try:
        request = decode_request(payload)
        said = _answer(core, request, peer, admitted=admitted)
    except DecodeError as exc:
        said = ProblemFrame(code="frame_wrong", detail=str(exc)[:200])
    return said if isinstance(said, Brought) else encode_frame(said)


def _answer(core: Core, request: Request, peer: str, *, admitted: bool) -> Answer | Brought:
    match request:
        case AskFrame():
            return _vote(core, request, peer, admitted=admitted)
        case FetchFrame():
            return RecordsFrame(records=_within_frame(core, core.store.get(request.ids)))
        case FeedFrame():
            return _page(core, request)
        case HeadFrame():
            head = head_records(core, request.asset, request.partition)
            return RecordsFrame(records=_within_frame(core, head))
        case OfferFrame():
            return Brought(request.records, encode_frame(RecordsFrame()))


def _vote(core: Core, request: AskFrame, peer: str, *, admitted: bool) -> Answer | Brought:
    ask = decode_record(request.ask)
    attached = tuple(decode_record(data) for data in request.records)
    if not admitted and are_dear(attached):
        return Brought(request.records, None)
    said = core.judge(AskArrived(ask, attached, peer))
    return VoteFrame(vote=said.encoded()) if isinstance(said, SignedRecord) else said


def _page(core: Core, request: FeedFrame) -> PageFrame:
    store = core.store
    same = request.incarnation == store.incarnation
    after = request.after if same else 0
    page = store.feed(core.coalition, after, records_max=PAGE_RECORDS_MAX, bytes_max=PAGE_BYTES_MAX)
    if same and after > page.end:
        page = store.feed(core.coalition, 0, records_max=PAGE_RECORDS_MAX, bytes_max=PAGE_BYTES_MAX)
    return PageFrame(
        incarnation=store.incarnation,
        position=page.next,
        records=tuple(r.encoded() for r in page.records if r.header.kind != "epoch"),
        epochs=tuple(r.encoded() for r in page.records if r.header.kind == "epoch"),
        more=page.next < page.end,
    )


def _within_frame(core: Core, records: Iterable[SignedRecord]) -> tuple[bytes, ...]:
    chosen: list[bytes] = []
    size = 0
    for record in records:
        if record.header.coalition != core.coalition:
            continue
        data = record.encoded()
        size += len(data) + 8
        if size > FRAME_RECORDS_BYTES_MAX:
            break
        chosen.append(data)
    return tuple(chosen)


def head_records(core: Core, asset: str, partition: str) -> list[SignedRecord]:
    """The newest promoted actuation of a slot, its certificate, and who vouches for the keys in it.

    Where it was rolled back, with the version that stands in its place.
    """
    heads = core.store.heads(asset, partition, coalition=core.coalition)
    if not heads:
        return []
    stands = standing(core.holdings, heads[0])
    wanted = {heads[0].actuation, stands.actuation if stands is not None else heads[0].actuation}
    found = {r.id: r for i in sorted(wanted) for r in certificate_records(core.holdings, i)}
    return [found[i] for i in sorted(found)]
