"""A program: hands the nastiest policy texts to the compiler, and prints `survived`.

It is a process of its own because each of these texts ends a process that hands it to the engine unguarded.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Final

from comity.attestation.policy_engine import (
    ContextFacts,
    PolicyFault,
    PolicyRequest,
    adopt_deep_stack,
    evaluate,
)
from comity.attestation.policy_guard import TEXT_BYTES_MAX, on_deep_stack, read_statements
from comity.attestation.policy_rules import compile_rules
from comity.protocol.encoding import encode
from comity.protocol.errors import DecodeError

SMALL_STACK_BYTES: Final = 2 * 1_024 * 1_024
"""Enough for every text within the bounds, and a thirty-second of what is used."""
TOO_SMALL_STACK_BYTES: Final = 512 * 1_024
"""What macOS gives a thread: not enough, but the engine notices."""

REQUEST: Final = PolicyRequest(
    subject="spiffe://a.example/operator/7f3a",
    member="a.example",
    kind="person",
    asset="a.example/released",
    writer="a.example",
    realm="production",
    context=ContextFacts(purpose="survival", tier=1, fresh=True, weight=1, ticket=True),
)


def rule(condition: str, name: str = "a") -> str:
    return f'@id("{name}") permit (principal, action, resource) when {{ {condition} }};'


def hostile() -> Iterator[str]:
    for count in (100, 5_000, 30_000):
        for opening, closing in (("(", ")"), ("[", "]"), ("{", "}"), ("!", ""), ("-", ""), ('{"a":', "}")):
            yield rule(opening * count + "1" + closing * count)
        yield rule("(if true then " * count + "1" + " else true)" * count)
        yield rule("if true then true else " * count + "true")
    for chain in ("+1", "-1", "*1", "&&1", "||1", ".a", '["a"]', ".contains(1)"):
        yield rule("1" + chain * 20_000)
        yield f"permit {chain * 20_000}"


SHAPES: Final[tuple[Callable[[int], str], ...]] = (
    lambda n: "+".join(["1"] * n) + " > 0",
    lambda n: "*".join(["1"] * n) + " > 0",
    lambda n: "&&".join(["context.fresh"] * n),
    lambda n: "||".join(["!context.fresh"] * n),
    lambda n: "if context.fresh then true else " * n + "true",
    lambda n: "if " * n + "true" + " then true else true" * n,
    lambda n: "(" * n + "true" + ")" * n,
    lambda n: "(true && " * n + "true" + ")" * n,
    lambda n: "(if true then " * n + "true" + " else true)" * n,
    lambda n: "!" * n + "true",
    lambda n: "true } when { " * n + "true",
    lambda n: "[" * n + "1" + "]" * n + " == " + "[" * n + "1" + "]" * n,
)
"""Each nests in a way of its own, as deep as it is told."""


def deepest(shape: Callable[[int], str], name: str) -> str:
    """The deepest text of a shape that the guard lets through."""
    depth = 1
    while not read_statements(rule(shape(depth + 1), name)).problems:
        depth += 1
    return rule(shape(depth), name)


def verdicts(stack: str) -> list[bytes | str]:
    """What this thread finds of the deepest texts. A name of its own for each makes it parse for itself."""
    found: list[bytes | str] = []
    for number, shape in enumerate(SHAPES):
        outcome = evaluate(compile_rules(deepest(shape, f"{stack}{number}")), REQUEST)
        found.append(outcome.code if isinstance(outcome, PolicyFault) else encode(outcome))
    return found


def verdicts_on_a_stack_of(size: int) -> list[bytes | str]:
    found: list[bytes | str] = []

    def look() -> None:
        adopt_deep_stack()
        found.extend(verdicts(str(size)))

    threading.stack_size(size)
    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    threading.stack_size(0)
    return found


def main() -> None:
    for text in hostile():
        try:
            compile_rules(text[:TEXT_BYTES_MAX])
        except DecodeError:
            continue
        raise SystemExit(f"accepted: {text[:200]}")
    # The smallest first: the system keeps the stack of a thread that has ended, and gives it to the next.
    shallow, small = verdicts_on_a_stack_of(TOO_SMALL_STACK_BYTES), verdicts_on_a_stack_of(SMALL_STACK_BYTES)
    deep = verdicts("deep")
    if deep != small or not all(isinstance(each, bytes) for each in deep):
        raise SystemExit(f"stacks disagree: {deep} {small}")
    # Where the stack is too small there is no verdict; there is never another one.
    if not set(shallow) <= {*deep, "policy_stack"} or "policy_stack" not in shallow:
        raise SystemExit(f"a shallow stack decides: {shallow}")
    # A fork has no thread with the deep stack; the child makes its own.
    child = os.fork()
    if child == 0:
        os._exit(on_deep_stack(lambda: 7))
    if os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) != 7:
        raise SystemExit("the child of a fork has no deep stack")
    sys.stdout.write("survived\n")


if __name__ == "__main__":
    main()
