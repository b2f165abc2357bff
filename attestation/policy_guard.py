"""What stands between a stranger's policy text and the Cedar engine.

Cedar's parser recurses on the native stack: a few kilobytes of nested brackets end the process, and how deep
is too deep depends on the thread that parses. So two things hold for every text:

- `read_statements` looks at it first, in a loop and not by recursion, and passes on only what lies within the
  bounds below. Within them every engine, on whatever stack, says the same.
- `on_deep_stack` runs parsing and evaluation on one thread whose stack is far larger than those bounds need.

The lexer here has to see brackets wherever Cedar's does. It therefore takes a narrower language than Cedar's:
ASCII outside of strings and comments, strings that end on their line, and no character that one of the two
might take for the end of a line.

Spec: docs/spec/policy.md section 2.
"""

from __future__ import annotations

import bisect
import os
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from queue import SimpleQueue
from typing import Final, Generic, Literal, TypeAlias, TypeVar

from comity.protocol.errors import ComityError
from comity.protocol.limits import STRING_BYTES_MAX

T = TypeVar("T")

TEXT_BYTES_MAX: Final = STRING_BYTES_MAX
"""One bundle's text: what one string of a record holds."""
RULES_MAX: Final = 256
"""Rules of one bundle. Each costs about a microsecond of every evaluation."""
RULE_TOKENS_MAX: Final = 400
"""Tokens of one rule. They bound every nesting that needs no bracket: chains of operators and attributes. At
400, threads of 2 MB and of 64 MB agree on every shape; one of 512 kB reaches the engine's own limit in a chain of
about 90 terms, and then has no verdict."""
BRACKETS_DEEP_MAX: Final = 16
"""Open brackets. About 25 nested conditions in brackets end a thread of 256 kB."""
CONDITIONALS_MAX: Final = 32
"""`if` in one rule: they nest without brackets."""
UNARY_RUN_MAX: Final = 4
"""`!` or `-` in a row: what Cedar's grammar itself allows."""
PROBLEMS_MAX: Final = 100
"""Problems that are listed of one text: nobody reads more."""
STACK_BYTES: Final = 64 * 1_048_576
"""Address space, not memory: pages are taken as they are touched."""

Severity: TypeAlias = Literal["error", "warning"]


@dataclass(frozen=True, slots=True, order=True)
class LintProblem:
    """What is wrong, and where.

    Attributes:
        line: from 1.
        column: from 1, in Unicode code points.
        code: stable; docs/spec/policy.md lists them.
        message: one sentence for a person.
        severity: a bundle with an error is not compiled; a warning is advice.
        hint: the nearest name that would have been right, or what to write; may be empty.
    """

    line: int
    column: int
    code: str
    message: str
    severity: Severity = "error"
    hint: str = ""

    def __str__(self) -> str:
        hint = f" ({self.hint})" if self.hint else ""
        return f"{self.line}:{self.column}: {self.code}: {self.message}{hint}"


@dataclass(frozen=True, slots=True)
class Token:
    """A piece of text that is neither space nor comment. `offset` counts code points from the start."""

    text: str
    offset: int

    @property
    def end(self) -> int:
        return self.offset + len(self.text)


@dataclass(frozen=True, slots=True)
class Annotation:
    """`@name("value")` before a rule, as written."""

    name: Token
    value: Token | None


@dataclass(frozen=True, slots=True)
class Statement:
    """One rule as it is written, from its first annotation to its semicolon.

    Attributes:
        effect: the first token after the annotations: `permit` or `forbid`, if the rule is well-formed.
    """

    text: str
    tokens: tuple[Token, ...]
    annotations: tuple[Annotation, ...]
    effect: Token

    def find(self, word: str) -> Token | None:
        """The first token with that text, or the first string with that content."""
        return next((token for token in self.tokens if token.text in (word, f'"{word}"')), None)

    def find_string(self, content: str) -> Token | None:
        """The first string with that content."""
        return next((token for token in self.tokens if token.text == f'"{content}"'), None)


class Positions:
    """From an offset to line and column."""

    def __init__(self, text: str) -> None:
        self._starts = [0, *(found.end() for found in re.finditer("\n", text))]

    def problem(self, offset: int, code: str, message: str, hint: str = "") -> LintProblem:
        line = bisect.bisect_right(self._starts, offset)
        return LintProblem(line, offset - self._starts[line - 1] + 1, code, message, hint=hint)


@dataclass(frozen=True, slots=True)
class Statements:
    """A text cut into rules. Only one without problems may go on to the engine."""

    statements: tuple[Statement, ...]
    problems: tuple[LintProblem, ...]
    positions: Positions = field(repr=False)


class EngineError(ComityError):
    """The engine failed, or could not be run. It says nothing about the policy: whoever judges abstains.

    Attributes:
        code: a stable code, e.g. `policy_engine_failed`.
    """

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(f"{code}: {detail}")
        self.code = code
        self.detail = detail


# Reading

# Control characters, invisible ones (Unicode's Default_Ignorable_Code_Point, and the blank of Braille), those that turn
# the direction of writing, other ends of lines, halves of surrogate pairs: a reviewer has to see what the engine reads.
_FORBIDDEN = re.compile(
    "[\\x00-\\x08\\x0b\\x0c\\x0e-\\x1f\\x7f-\\x9f\\u00ad\\u034f\\u061c\\u115f-\\u1160\\u17b4-\\u17b5"
    "\\u180b-\\u180f\\u200b-\\u200f\\u2028-\\u202e\\u2060-\\u206f\\u2800\\u3164\\ufe00-\\ufe0f\\ufeff\\uffa0"
    "\\ufff0-\\ufffb\\ud800-\\udfff\\U0001bca0-\\U0001bca3\\U0001d173-\\U0001d17a\\U000e0000-\\U000e0fff]|\\r(?!\\n)"
)
_TOKEN = re.compile(
    r"""
      (?P<space> [ \t\r\n]+ | //[^\n]* )
    | (?P<token>
          "(?: \\[^\n] | [^"\\\n] )*"
        | [A-Za-z_][A-Za-z0-9_]*
        | [0-9]+
        | :: | == | != | <= | >= | && | \|\|
        | [()\[\]{};,.:<>=!+*@?-]
      )
    """,
    re.VERBOSE,
)
_CLOSES: Final = {")": "(", "]": "[", "}": "{"}


def read_statements(text: str) -> Statements:
    """Cut a text into rules, within the bounds. Linear in the length; never raises."""
    positions = Positions(text[: TEXT_BYTES_MAX + 1])
    if len(text) > TEXT_BYTES_MAX or len(text.encode("utf-8", "surrogatepass")) > TEXT_BYTES_MAX:
        return _stopped(positions, 0, "text_too_long", f"more than {TEXT_BYTES_MAX} bytes")
    bad = _FORBIDDEN.search(text)
    if bad is not None:
        what = f"the character U+{ord(bad.group()):04X} may not stand in a policy"
        return _stopped(positions, bad.start(), "character_forbidden", what)
    return _cut(text, positions)


def _stopped(positions: Positions, offset: int, code: str, message: str) -> Statements:
    return Statements((), (positions.problem(offset, code, message),), positions)


@dataclass(slots=True)
class _Counts:
    """What is bounded within one rule."""

    tokens: list[Token] = field(default_factory=list[Token])
    open: list[Token] = field(default_factory=list[Token])
    conditionals: int = 0
    unary: int = 0

    def take(self, token: Token) -> tuple[str, str] | None:
        """Count a token. Returns code and message of the bound that it breaks."""
        text = token.text
        if text == "has" and (not self.tokens or self.tokens[-1].text != "."):
            # `has a.b.c` takes time quadratic in its length; here every attribute is always there.
            return "operator_unsupported", "every attribute is always there: `has` is no part of the language"
        self.tokens.append(token)
        if len(self.tokens) > RULE_TOKENS_MAX:
            return "rule_too_long", f"a rule of more than {RULE_TOKENS_MAX} words and signs"
        self.unary = self.unary + 1 if text in ("!", "-") else 0
        if self.unary > UNARY_RUN_MAX:
            return "unary_run_long", f"more than {UNARY_RUN_MAX} `{text}` in a row"
        if text == "if":
            self.conditionals += 1
            if self.conditionals > CONDITIONALS_MAX:
                return "conditionals_many", f"more than {CONDITIONALS_MAX} `if` in one rule"
        elif text in ("(", "[", "{"):
            self.open.append(token)
            if len(self.open) > BRACKETS_DEEP_MAX:
                return "brackets_deep", f"more than {BRACKETS_DEEP_MAX} brackets open at once"
        elif text in _CLOSES and (not self.open or self.open.pop().text != _CLOSES[text]):
            return "brackets_unbalanced", f"`{text}` closes nothing"
        return None


def _cut(text: str, positions: Positions) -> Statements:
    statements: list[Statement] = []
    rule = _Counts()
    offset = 0
    while offset < len(text):
        found = _TOKEN.match(text, offset)
        if found is None:
            quote = text[offset] == '"'
            what = (
                "a string that does not end on its line" if quote else f"`{text[offset]}` means nothing here"
            )
            return _stopped(positions, offset, "string_open" if quote else "character_unexpected", what)
        offset = found.end()
        if found.lastgroup == "space":
            continue
        token = Token(found.group(), found.start())
        broken = rule.take(token)
        if broken is not None:
            return _stopped(positions, token.offset, *broken)
        if token.text == ";" and not rule.open:
            statements.append(_statement(text, rule.tokens))
            rule = _Counts()
            if len(statements) > RULES_MAX:
                return _stopped(positions, token.offset, "rules_many", f"more than {RULES_MAX} rules")
    problems: tuple[LintProblem, ...] = ()
    if rule.open:
        opened = rule.open[-1]
        problems = (
            positions.problem(opened.offset, "brackets_unbalanced", f"`{opened.text}` is not closed"),
        )
    elif rule.tokens:
        last = rule.tokens[-1]
        what = "the last rule does not end"
        problems = (positions.problem(last.offset, "rule_open", what, "write `;` at its end"),)
    return Statements(tuple(statements), problems, positions)


def _statement(text: str, tokens: list[Token]) -> Statement:
    annotations: list[Annotation] = []
    i = 0
    while tokens[i].text == "@" and i + 2 < len(tokens):
        name, value = tokens[i + 1], None
        i += 2
        if tokens[i].text == "(" and i + 3 < len(tokens):
            value = tokens[i + 1]
            i += 3
        annotations.append(Annotation(name, value))
    start, end = tokens[0].offset, tokens[-1].end
    return Statement(text[start:end], tuple(tokens), tuple(annotations), tokens[i])


# Running


@dataclass(slots=True)
class _Job(Generic[T]):
    call: Callable[[], T]
    done: threading.Lock
    result: T | None = None
    error: BaseException | None = None


class _DeepStack:
    """One thread, made when it is first needed, that runs one call after the other."""

    def __init__(self) -> None:
        self._jobs: SimpleQueue[_Job[object]] = SimpleQueue()
        self._starting = threading.Lock()
        self._started = False

    def run(self, call: Callable[[], T]) -> T:
        if not self._started:
            self._start()
        job: _Job[T] = _Job(call, threading.Lock())
        job.done.acquire()
        self._jobs.put(job)  # type: ignore[arg-type]  # the queue asks nothing of a result
        job.done.acquire()
        if job.error is not None:
            try:
                raise job.error
            finally:
                # The traceback holds this frame, which holds the job: a cycle that keeps what was judged.
                job.error = None
        return job.result  # type: ignore[return-value]  # without an error the call has returned a T

    def _start(self) -> None:
        with self._starting:
            if self._started:
                return
            thread = threading.Thread(target=self._serve, name="comity-policy", daemon=True)
            try:
                before = threading.stack_size(STACK_BYTES)
                try:
                    thread.start()
                finally:
                    threading.stack_size(before)
            except (ValueError, RuntimeError) as exc:
                raise EngineError("policy_stack_missing", f"no thread with a deep stack: {exc}") from exc
            self._started = True

    def _serve(self) -> None:
        adopt_deep_stack()
        while True:
            job = self._jobs.get()
            try:
                job.result = job.call()
            except BaseException as exc:  # noqa: BLE001  # carried to the thread that waits, whatever it is
                job.error = exc
            job.done.release()
            # Else the last job, with all that it refers to, lives until the next one comes.
            del job


_deep_stack = _DeepStack()
_thread = threading.local()


def _after_fork() -> None:
    """A fork has copied the queue but not the thread."""
    global _deep_stack  # noqa: PLW0603  # the one thread of this process
    _deep_stack = _DeepStack()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def on_deep_stack(call: Callable[[], T]) -> T:
    """Run a call on the thread with the deep stack, and wait for it.

    A call that is made on a deep stack already runs at once, so a whole judgement with its many evaluations
    costs one hop. What the call raises is raised here. A call may not wait for another thread that uses this
    function.

    Raises:
        EngineError: `policy_stack_missing`, the system gives no such thread.
    """
    if getattr(_thread, "is_deep", False):
        return call()
    return _deep_stack.run(call)


def adopt_deep_stack() -> None:
    """Say that the calling thread has a stack of `STACK_BYTES` or more: `on_deep_stack` makes no hop from it.

    Who says so of a thread with a smaller stack may get other verdicts than everybody else.
    """
    _thread.is_deep = True


def engine_call(call: Callable[[], T]) -> T:
    """Call the Cedar engine: the one place where its errors are translated. Only for the deep stack.

    Raises:
        EngineError: `policy_engine_failed`, whatever went wrong. A panic of the engine is no `Exception` in
            Python, and must not end the thread either.
    """
    try:
        return call()
    except EngineError:
        raise
    except Exception as exc:
        raise EngineError("policy_engine_failed", f"{type(exc).__name__}: {exc}") from exc
    except BaseException as exc:
        if type(exc).__module__ == "pyo3_runtime":
            raise EngineError("policy_engine_failed", f"panic: {exc}") from exc
        raise
