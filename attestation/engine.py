"""Which engine this is: the digest of what it makes of the published conformance vectors.

Package versions are informative; two engines are the same engine if they judge the vectors alike, to the byte.
An epoch names the vectors by their digest and at most two engines that it accepts (docs/spec/judgement.md
section 4).
"""

from __future__ import annotations

from functools import lru_cache
from importlib import resources
from typing import Final

from comity.attestation.case import Fault
from comity.attestation.judgement import judge
from comity.attestation.offline import case_of, read_unpinned
from comity.protocol.encoding import encode
from comity.protocol.errors import LocalProtocolError
from comity.protocol.execution import Vote
from comity.protocol.identifiers import sha256

VECTORS_FILE: Final = "conformance-1.bundle"


def vectors() -> bytes:
    """The conformance vectors of this version: a bundle whose votes are to be judged again."""
    return resources.files("comity.attestation").joinpath(VECTORS_FILE).read_bytes()


@lru_cache(maxsize=1)
def vectors_digest() -> bytes:
    return sha256(vectors())


@lru_cache(maxsize=1)
def engine_id() -> bytes:
    """The digest of this engine's results over the vectors, in the order of the votes' ids.

    Raises:
        LocalProtocolError: a vector cannot be judged here; such an engine votes on nothing.
    """
    return results_digest(vectors())


def results_digest(data: bytes) -> bytes:
    """SHA-256 over the judgements of every vote of a bundle, in the order of their ids."""
    held, governances = read_unpinned(data)
    results: list[bytes] = []
    for record_id in sorted(held):
        vote = held[record_id]
        if not isinstance(vote.body, Vote):
            continue
        judgement = judge(case_of(vote, held, governances[vote.body.epoch]))
        if isinstance(judgement, Fault):
            raise LocalProtocolError(f"conformance vector {record_id.hex()[:16]}: {judgement.code}")
        results.append(encode({"expires": judgement.expires, "working": judgement.working}))
    return sha256(b"".join(results))
