"""What the world is after it was said: a set of verified records, and what follows from the set alone.

Law 5: state is a function of the set. Adding is commutative and idempotent, nothing is ever overwritten, and
no query depends on the order of arrival.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import Any, Final, TypeAlias

from comity.protocol.limits import ADVERSE_PER_SUBJECT_MAX
from comity.protocol.verified import Role, VerifiedRecord

AnyRecord: TypeAlias = VerifiedRecord[Any]
_Numbered: TypeAlias = tuple[str, str, bytes, str, int]
_RANKS: Final[dict[Role, int]] = {"members": 0, "organization": 0, "node": 1, "subject": 2}
"""Whose words about a subject come first, where a member says more than are looked at."""
_TAKING_BACK: Final = frozenset({"revocation", "suspension"})
"""Their author has to be entitled by its key: they are looked at by keys, and one key crowds out no other."""
_Signer: TypeAlias = tuple[str, bytes]
"""A member and the id of one of its keys."""
_Voice: TypeAlias = tuple[int, bytes]
"""The rank of a key and its id."""
ORGANIZATION: Final = b""
"""Stands for all keys that are an organization's own."""


def _keep_first(ids: list[bytes], record_id: bytes) -> None:
    # Those that come first do so whatever came before: the rest is held, and looked at by nobody.
    insort(ids, record_id)
    del ids[ADVERSE_PER_SUBJECT_MAX:]


def _in_turn(voices: Mapping[_Voice, list[bytes]]) -> list[bytes]:
    """What one member says about a subject, as much of it as is looked at: no key crowds out another of its rank."""
    turns = sorted((rank, turn, i) for (rank, _), ids in voices.items() for turn, i in enumerate(ids))
    return [i for _, _, i in turns[:ADVERSE_PER_SUBJECT_MAX]]


def number_key(record: AnyRecord) -> _Numbered | None:
    """What must be unique: kind, author (organization and key), name and number. None where it has no name."""
    header = record.header
    if not header.name:
        return None
    return (header.kind, header.member, header.key, header.name, header.number)


class State:
    """The governance records that are held, with the indices that judgement needs."""

    def __init__(self, records: Iterable[AnyRecord] = ()) -> None:
        self._by_id: dict[bytes, AnyRecord] = {}
        self._reported: dict[bytes, dict[str, dict[_Voice, list[bytes]]]] = {}
        self._taken_back: dict[bytes, dict[_Signer, list[bytes]]] = {}
        self._organizations: dict[bytes, set[_Signer]] = {}
        self._numbered: dict[_Numbered, set[bytes]] = {}
        self._named: dict[tuple[str, str, str], set[bytes]] = {}
        self._kinds: dict[str, set[bytes]] = {}
        self._sorted_kinds: dict[str, tuple[bytes, ...]] = {}
        for record in records:
            self.add(record)

    def add(self, record: AnyRecord) -> bool:
        """Hold a record. Returns whether it was new."""
        if record.id in self._by_id:
            return False
        self._by_id[record.id] = record
        header = record.header
        if header.kind in _TAKING_BACK:
            own = record.role == "organization"
            signer = (record.member, ORGANIZATION if own else header.key)
            for subject in header.subject:
                if own:
                    self._organizations.setdefault(subject, set()).add(signer)
                by_signer = self._taken_back.setdefault(subject, {})
                _keep_first(by_signer.setdefault(signer, []), record.id)
        elif record.is_adverse():
            voice = (_RANKS[record.role], header.key)
            for subject in header.subject:
                voices = self._reported.setdefault(subject, {}).setdefault(record.member, {})
                _keep_first(voices.setdefault(voice, []), record.id)
        self._kinds.setdefault(header.kind, set()).add(record.id)
        self._sorted_kinds.pop(header.kind, None)
        key = number_key(record)
        if key is not None:
            self._numbered.setdefault(key, set()).add(record.id)
        self._named.setdefault((header.kind, header.member, header.name), set()).add(record.id)
        return True

    def get(self, record_id: bytes) -> AnyRecord | None:
        return self._by_id.get(record_id)

    def __contains__(self, record_id: object) -> bool:
        return record_id in self._by_id

    def __len__(self) -> int:
        return len(self._by_id)

    def __iter__(self) -> Iterator[AnyRecord]:
        """All records in the order of their ids."""
        for record_id in sorted(self._by_id):
            yield self._by_id[record_id]

    def of_kind(self, kind: str) -> list[AnyRecord]:
        """All records of a kind, in the order of their ids."""
        if kind not in self._sorted_kinds:
            self._sorted_kinds[kind] = tuple(sorted(self._kinds.get(kind, ())))
        return [self._by_id[record_id] for record_id in self._sorted_kinds[kind]]

    def adverse_about(
        self,
        subjects: Iterable[bytes],
        may_take_back: Callable[[bytes], Collection[_Signer]] | None = None,
    ) -> tuple[AnyRecord, ...]:
        """Adverse records that speak of any of the subjects, in the order of their ids.

        Of revocations and suspensions those of the keys named; of each key about one subject the first
        `ADVERSE_PER_SUBJECT_MAX` by id. Of other records of one member about one subject as many: those that the
        organization's own key signed, then those of its nodes, then those of persons and agents; among each the first
        by id of every key, then the second of every key, and so on.

        Args:
            may_take_back: of a subject, whose keys may take it back: members, each with the id of a key, or
                `ORGANIZATION` for its own. Without it, every organization's own.
        """
        found: set[bytes] = set()
        for subject in subjects:
            for voices in self._reported.get(subject, {}).values():
                found.update(_in_turn(voices))
            by_signer = self._taken_back.get(subject)
            if by_signer:
                own = self._organizations.get(subject, ())
                for signer in may_take_back(subject) if may_take_back is not None else own:
                    found.update(by_signer.get(signer, ()))
        return tuple(self._by_id[i] for i in sorted(found))

    def rivals(self, record: AnyRecord) -> tuple[AnyRecord, ...]:
        """Other records with the same author, kind, name and number: with one held, neither counts."""
        key = number_key(record)
        ids = self._numbered.get(key, set()) if key is not None else set[bytes]()
        return tuple(self._by_id[i] for i in sorted(ids - {record.id}))

    def successors(self, record: AnyRecord) -> tuple[AnyRecord, ...]:
        """Records of the same organization, kind and name with a higher number."""
        header = record.header
        ids = self._named.get((header.kind, header.member, header.name), set())
        return tuple(self._by_id[i] for i in sorted(ids) if self._by_id[i].header.number > header.number)
