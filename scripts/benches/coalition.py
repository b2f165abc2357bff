"""The coalition that the benchmarks decide in: n members, twenty policies, credential chains five deep.

Every process builds the same one from the same names, so nothing has to be handed over but addresses.
"""

from __future__ import annotations

import time
from typing import Final

from comity.attestation.authoring import NO_SALT
from comity.protocol.envelope import SignedRecord
from comity.protocol.execution import CodeReference, Intent, Item, ItemClass, RunReference
from comity.protocol.identifiers import sha256
from world import START as WORLD_START
from world import World, policy_body, taxonomy_body

YEAR: Final = 365 * 24 * 3600
LINKS: Final = 5
COLUMNS: Final = ("inst", "time", "status", "age", "sex", "ph_ecog", "meal_cal", "age_decade")

_RULE = """
@id("rule-{n}") @mode("{mode}") @reason("rule_{n}") {extra}
forbid(principal, action == Action::"materialize", resource)
when {{ {condition} }};
"""

CONDITIONS = (
    'context.tier > {n} && context.purpose == "none"',
    'principal.kind == "agent" && context.items > {n}00',
    'resource.realm != "production" && context.weight < {n}000',
    'context.input_owners.contains("nobody-{n}.example")',
)


def rules() -> str:
    """Twenty rules: two that permit, and eighteen that look and do not fire, or restrict columns."""
    text = [
        '@id("base") permit(principal, action == Action::"materialize", resource);',
        '@id("base-columns") permit(principal, action == Action::"include", resource);',
        (
            '@id("quasi") @mode("restrict") @reason("quasi_identifier")\n'
            'forbid(principal, action == Action::"include", resource)\n'
            'when { resource.column_class == "quasi_identifier" };'
        ),
        (
            '@id("unneeded") @mode("restrict") @reason("column_not_needed")\n'
            'forbid(principal, action == Action::"include", resource) unless { resource.named };'
        ),
    ]
    for number in range(16):
        condition = CONDITIONS[number % len(CONDITIONS)].replace("{n}", str(number % 4 + 1))
        text.append(
            _RULE.format(
                n=number,
                mode="refuse" if number % 2 else "defer",
                extra="" if number % 2 else '@needs("approval(class=data-steward)")',
                condition=condition,
            )
        )
    return "\n".join(text)


def names(members: int) -> tuple[str, ...]:
    return tuple(f"member-{index:02}.example" for index in range(members))


def build(members: int) -> World:
    policy = policy_body(rules())
    return World(names(members), policy=policy, taxonomy=taxonomy_body())


def chains(world: World, member: str, count: int) -> tuple[list[bytes], list[SignedRecord]]:
    """Credential chains of one member, five links each, none shared. The last is held by the member's node."""
    organization = world[member]
    since = WORLD_START - 2 * YEAR
    leaves: list[bytes] = []
    records: list[SignedRecord] = []
    for number in range(count):
        above: str | None = None
        for depth in range(LINKS):
            last = depth == LINKS - 1
            who = f"automation/{number}" if last else f"operator/{number}-{depth}"
            record = organization.credential(
                who,
                kind="automation" if last else "person",
                under=above,
                held_by="node/n1" if last else None,
                delegations=LINKS - depth,
                not_before=since,
            )
            records.append(record)
            above = who
        leaves.append(records[-1].id)
    return leaves, records


def intent(world: World, member: str, leaf: bytes, number: int, label: str) -> SignedRecord:
    """A distinct intent: its own asset, run, code and credential."""
    organization = world[member]
    now = int(time.time())
    body = Intent(
        salt=NO_SALT,
        requester=f"spiffe://{member}/automation/{number}",
        credential=leaf,
        purpose="survival_study",
        code=CodeReference(digest=sha256(f"code {label} {number}".encode())),
        run=RunReference("bench", f"{label}-{number}", "step", "job"),
        classes=(
            ItemClass(
                asset=f"{member}/plain/{label}-{number}",
                items=(Item(generation=1),),
                columns=COLUMNS,
                reversible=True,
            ),
        ),
        expires=now + 3600,
        attempts_max=1,
    )
    return organization.node.write("intent", body, now)
