"""One intent with its ask, judged as a voter would, with any record of it exchanged for another."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from comity.attestation.authoring import NO_SALT
from comity.attestation.case import Case, ClassWorking, Fault, Judgement
from comity.attestation.judgement import judge
from comity.protocol.envelope import SignedRecord
from comity.protocol.execution import Ask, ScopeEpoch
from comity.protocol.verified import VerifiedRecord
from world import INSTITUTE, START, World


class Asked:
    """An intent of the institute, asked for at `START`, with what the ask relies on."""

    def __init__(
        self, *assets: str, world: World | None = None, who: str = "automation/main", **intent: Any
    ) -> None:
        self.world = world or World()
        self.institute = self.world[INSTITUTE]
        self.relied: list[SignedRecord] = [self.institute.credentials[who][1]]
        self.intent = self.verified(self.institute.intent(*(assets or ("plain/a",)), who=who, **intent))
        epoch = self.institute.holdings.epoch
        body = Ask(
            salt=NO_SALT,
            intent=self.intent.id,
            t=START,
            epochs=(ScopeEpoch(scope=epoch.coalition, epoch=epoch.id),),
            relied=(),
        )
        realm = self.intent.header.realm
        self.ask = self.verified(self.institute.node.write("ask", body, START, realm=realm))

    def verified(self, record: SignedRecord) -> VerifiedRecord[Any]:
        admission = self.institute.holdings.admit([record])
        assert not admission.rejected, admission.rejected
        held = self.institute.holdings.get(record.id)
        assert held is not None
        return held

    def case(self, candidates: Iterable[SignedRecord] = (), **changes: Any) -> Case:
        governance = self.institute.holdings.governance()
        assert governance is not None
        case = Case(
            governance=governance,
            intent=self.intent,
            ask=self.ask,
            relied={record.id: self.verified(record) for record in self.relied},
            candidates=tuple(self.verified(record) for record in candidates),
            known={self.institute.certificate.id: self.verified(self.institute.certificate)},
        )
        return replace(case, **changes)

    def judged(self, candidates: Iterable[SignedRecord] = (), **changes: Any) -> Judgement:
        judgement = judge(self.case(candidates, **changes))
        assert not isinstance(judgement, Fault)
        return judgement

    def codes(self, candidates: Iterable[SignedRecord] = (), index: int = 0, **changes: Any) -> set[str]:
        return {c.code for c in self.judged(candidates, **changes).classes[index].outcome.causes}

    def working(self, **changes: Any) -> ClassWorking:
        return self.judged(**changes).working.classes[0]
