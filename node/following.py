"""Going through the governance records of another node, page by page. Functions of the core.

Spec: docs/spec/peer.md section 5.
"""

from __future__ import annotations

from collections.abc import Sequence

from comity.node.core import Core
from comity.node.portions import next_portion
from comity.node.store import Cursor
from comity.protocol.frames import FeedFrame, PageFrame, encode_frame


def feed_request(core: Core, peer: str) -> bytes:
    """The next request to a peer."""
    cursor = core.store.cursor(peer, core.coalition)
    if cursor is None:
        return encode_frame(FeedFrame())
    return encode_frame(FeedFrame(after=cursor.position, incarnation=cursor.incarnation))


def admit_few(core: Core, records: Sequence[bytes], position: int, source: str) -> int:
    """Admit the next few of what a peer brought, in one commit. Returns where to go on.

    Who waits for news hears of it by `Core.tell_news`.

    Raises:
        DecodeError: one of them is no record; none of this portion is admitted.
    """
    portion, following = next_portion(records, position)
    core.admit(portion, source=source, tell=False)
    return following


def close_page(core: Core, peer: str, page: PageFrame) -> bool:
    """Remember how far a peer's governance records were admitted. Returns whether there are more."""
    before = core.store.cursor(peer, core.coalition)
    cursor = Cursor(page.incarnation, page.position)
    if cursor != before:
        core.store.set_cursor(peer, core.coalition, cursor)
    # A page that does not move the cursor ends the round, whatever the peer says of more.
    return page.more and cursor != before
