"""The clock of the machine, and the one that tests turn."""

from __future__ import annotations

import time

import pytest

from comity.node.clock import Clock, ManualClock, SystemClock


def test_the_system_clock_tells_the_machines_time() -> None:
    clock: Clock = SystemClock()
    before = int(time.time())
    now = clock.now()
    assert before <= now <= time.time()
    assert before - 1 <= clock.started <= now
    assert clock.started == clock.started
    assert clock.monotonic() <= clock.monotonic()


def test_a_manual_clock_stands_still_until_it_is_moved() -> None:
    clock: Clock = ManualClock(1_000)
    assert (clock.now(), clock.started, clock.monotonic()) == (1_000, 1_000, 0.0)
    assert isinstance(clock, ManualClock)
    clock.advance(1.5)
    clock.advance(0.6)
    assert (clock.now(), clock.started, clock.monotonic()) == (1_002, 1_000, 2.1)


def test_durations_do_not_notice_that_a_clock_is_set() -> None:
    clock = ManualClock(1_000, started=990)
    clock.advance(3.5)
    clock.set_now(500)
    assert (clock.now(), clock.started, clock.monotonic()) == (500, 990, 3.5)
    clock.advance(0.5)
    assert clock.now() == 501
    with pytest.raises(ValueError, match="forwards"):
        clock.advance(-1)
