"""What a command shows while it works for more than a moment: one line on the error output, gone when it is done.

Only on a terminal, and never with `--json`: what programs read is the same with it and without.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from comity.node.visible import visible

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress

SHOWN_AFTER_S: Final = 0.5
"""What is done sooner shows nothing: a line that flashes says less than none."""
WIDTH_LEFT: Final = 24
"""Columns for the time and the rest of the line."""


class Work:
    """What is being done. It may be told from the thread that does it, as often as one likes.

    Args:
        console: where to show it; None shows nothing.
    """

    def __init__(self, text: str, console: Console | None) -> None:
        self._text = text
        self._console = console
        self._progress: Progress | None = None
        self._lock = threading.Lock()
        self._over = False

    def told(self, text: str, done: int = 0, total: int = 0) -> None:
        """Say what is done now, and how many of how many where that is known."""
        if self._console is None:
            return
        counted = f": {done} of {total}" if total else ""
        with self._lock:
            self._text = f"{text}{counted}"
            if self._progress is not None:
                self._progress.update(self._progress.task_ids[0], description=self._line())

    def begin(self) -> None:
        """Show it, unless it is over."""
        with self._lock:
            if self._console is None or self._over:
                return
            from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

            self._progress = Progress(
                SpinnerColumn(),
                TextColumn("{task.description}", markup=False),
                TimeElapsedColumn(),
                console=self._console,
                transient=True,
                redirect_stdout=False,
                redirect_stderr=False,
            )
            self._progress.add_task(self._line(), total=None)
            self._progress.start()

    def end(self) -> None:
        """Take it away."""
        with self._lock:
            self._over = True
            if self._progress is not None:
                self._progress.stop()

    def _line(self) -> str:
        width = self._console.width if self._console is not None else 0
        return visible(self._text)[: max(20, width - WIDTH_LEFT)]


@contextmanager
def work(text: str, *, as_json: bool, console: Console | None = None) -> Generator[Work, None, None]:
    """Show what is done inside, from half a second on.

    Args:
        console: a terminal; otherwise the error output, if that is one.
    """
    shown = Work(text, None if as_json else console or _terminal())
    timer = threading.Timer(SHOWN_AFTER_S, shown.begin)
    timer.daemon = True
    timer.start()
    try:
        yield shown
    finally:
        timer.cancel()
        shown.end()


def _terminal() -> Console | None:
    """The error output where people look at it. Rich alone could be told by the environment that a file is one."""
    if not sys.stderr.isatty():
        return None
    from rich.console import Console

    console = Console(stderr=True, highlight=False, emoji=False)
    return None if console.is_dumb_terminal else console
