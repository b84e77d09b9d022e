"""A part that answers slowly is noticed within a few calls, and normal variation is not."""

from __future__ import annotations

import random

import aiohttp
import pytest
from aiohttp import web

from shared.retry import call_times
from shared.retry.call_times import CallTimes
from shared.retry.policy import LONGEST_WAIT


class _Calls:
    """Calls to one part, on a clock that only they move."""

    def __init__(self, *, expected: float = 0.0) -> None:
        self.now = 0.0
        self.times = CallTimes(expected=expected, clock=lambda: self.now)

    def make(self, number: int, seconds: float, method: str = "GET") -> None:
        for _ in range(number):
            call = self.times.start(method)
            self.wait(seconds)
            self.times.end(call)

    def wait(self, seconds: float) -> None:
        """Let time pass; heartbeats look meanwhile."""
        until = self.now + seconds
        while until - self.now > 0.5:
            self.now += 0.5
            self.times.slow()
        self.now = until


def test_calls_at_a_second_where_50_ms_are_usual_are_said_within_seconds() -> None:
    calls = _Calls()
    calls.make(20, 0.05)
    assert calls.times.slow() is None
    calls.make(2, 1.0)
    assert calls.times.slow() is None
    calls.make(4, 1.0)
    slow = calls.times.slow()
    assert slow is not None
    assert (slow.method, round(slow.seconds_now, 3), round(slow.seconds_usual, 3)) == ("GET", 1.0, 0.05)
    assert slow.answers


def test_calls_of_some_seconds_are_said_though_each_has_another_method() -> None:
    calls = _Calls(expected=0.25)
    calls.make(1, 3.0, "GET")
    calls.make(1, 3.0, "POST")
    calls.times.start("PUT")
    calls.wait(1.5)
    slow = calls.times.slow()
    assert slow is not None
    assert slow.answers


def test_a_short_burst_of_work_is_not_slow() -> None:
    calls = _Calls()
    calls.make(20, 0.05)
    burst = [calls.times.start("GET") for _ in range(8)]
    for call in burst:
        calls.wait(0.4)
        calls.times.end(call)
        assert calls.times.slow() is None
    calls.make(3, 0.05)
    assert calls.times.slow() is None


def test_a_part_that_answers_nobody_is_not_called_slow() -> None:
    calls = _Calls()
    calls.make(20, 0.05)
    hanging = calls.times.start("GET")
    calls.wait(3.0)
    assert calls.times.slow() is None
    calls.wait(2.5)
    silent = calls.times.slow()
    assert silent is not None
    assert (silent.answers, silent.seconds_now) == (False, 5.5)
    # the call was given up, and the next attempt waits for its turn
    calls.times.end(hanging, answered=False)
    calls.wait(4.0)
    silent = calls.times.slow()
    assert silent is not None
    assert not silent.answers
    calls.make(3, 0.05)
    assert calls.times.slow() is None


def test_a_part_is_silent_until_the_last_attempt_could_have_begun_and_no_longer() -> None:
    calls = _Calls()
    calls.make(20, 0.05)
    for _ in range(2):
        hanging = calls.times.start("GET")
        calls.wait(10.0)
        calls.times.end(hanging, answered=False)
        calls.wait(LONGEST_WAIT)
        silent = calls.times.slow()
        assert silent is not None
        assert not silent.answers
    calls.wait(1.5)
    # neither silent nor slow: nobody asks it
    assert calls.times.slow() is None
    # the next call that waits is one of the same silence
    calls.times.start("GET")
    calls.wait(1.0)
    silent = calls.times.slow()
    assert silent is not None
    assert not silent.answers


def test_an_outage_of_some_time_ago_is_no_silence_of_now() -> None:
    calls = _Calls()
    calls.make(20, 0.05)
    calls.times.end(calls.times.start("GET"), answered=False)
    calls.wait(60)
    calls.times.start("GET")
    calls.wait(1.0)
    assert calls.times.slow() is None


def test_a_call_that_runs_for_long_beside_others_that_are_answered_is_no_silence() -> None:
    calls = _Calls()
    calls.make(20, 0.05)
    calls.make(20, 1.0, "PUT")
    calls.times.start("PUT")
    for _ in range(40):
        calls.make(1, 0.05)
        calls.wait(0.2)
        found = calls.times.slow()
        assert found is None or found.answers


def test_a_part_that_is_slow_from_the_first_call_is_compared_with_what_is_expected() -> None:
    calls = _Calls(expected=0.25)
    calls.make(5, 1.2)
    assert calls.times.slow() is not None
    unknown = _Calls()
    unknown.make(4, 1.2)
    assert unknown.times.slow() is None


def test_calls_that_fail_at_once_are_not_taken_for_fast_ones() -> None:
    calls = _Calls()
    calls.make(20, 0.05)
    calls.make(6, 1.0)
    for _ in range(3):
        calls.times.end(calls.times.start("GET"), answered=False)
    assert calls.times.slow() is not None


def test_normal_variation_is_no_alarm() -> None:
    calls, chance = _Calls(), random.Random(13)
    calls.make(20, 0.12)
    for _ in range(2000):
        # long uploads beside short questions, and one call in fifty that takes ten times as long
        calls.make(1, chance.uniform(0.05, 0.2) * (10 if chance.random() < 0.02 else 1))
        calls.make(1, chance.uniform(0.8, 2.4), "PUT")
        if chance.random() < 0.02:
            continue
        slow = calls.times.slow()
        assert slow is None or slow.method == "GET"
    alarms = 0
    for _ in range(2000):
        calls.make(1, chance.lognormvariate(-2.1, 0.4))
        alarms += calls.times.slow() is not None
    assert alarms == 0


def test_it_is_over_when_none_of_the_last_three_is_slow() -> None:
    calls = _Calls()
    calls.make(20, 0.05)
    calls.make(6, 1.0)
    calls.make(2, 0.05)
    assert calls.times.slow() is not None
    calls.make(1, 0.05)
    assert calls.times.slow() is None


def test_a_slow_phase_does_not_become_the_usual_before_an_hour() -> None:
    calls = _Calls()
    calls.make(20, 0.05)
    calls.make(3000, 1.0)
    assert calls.times.slow() is not None
    calls.make(700, 1.0)
    assert calls.times.slow() is None
    calls.make(3, 5.0)
    assert calls.times.slow() is not None


def test_calls_of_some_time_ago_say_nothing_about_now() -> None:
    calls = _Calls()
    calls.make(20, 0.05)
    calls.make(6, 1.0)
    assert calls.times.slow() is not None
    calls.now += 21
    assert calls.times.slow() is None


async def test_a_session_measures_its_calls_and_forgets_those_that_fail(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(call_times, "_PARTS", {})
    application = web.Application()

    async def answer(_: web.Request) -> web.Response:
        return web.Response(text="fine")

    application.router.add_get("/", answer)
    runner = web.AppRunner(application)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0][:2]
    try:
        async with aiohttp.ClientSession(trace_configs=[call_times.timed("part", expected=1e-9)]) as session:
            monkeypatch.setattr(call_times, "_FLOOR_SECONDS", 0.0)
            monkeypatch.setattr(call_times, "_BURST_SECONDS", 0.0)
            for _ in range(2):
                async with session.get(f"http://{host}:{port}/") as got:
                    assert got.status == 200
            with pytest.raises(aiohttp.ClientConnectorError):
                await session.get("http://127.0.0.1:1/")
            [(part, slow)] = call_times.slow_parts().items()
    finally:
        await runner.cleanup()
    assert (part, slow.method) == ("part", "GET")
