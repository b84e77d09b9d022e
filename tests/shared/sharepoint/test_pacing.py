from __future__ import annotations

import heapq

import pytest

from shared.retry.errors import HttpStatusError
from shared.sharepoint.pacing import LONGEST_WAIT, Pace


class Clock:
    """Time that passes only where somebody sleeps."""

    def __init__(self) -> None:
        self.now = 100.0
        self.slept: list[float] = []

    def __call__(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def pace(clock: Clock) -> Pace:
    return Pace(clock=clock, sleep=clock.sleep)


# Of 1200 units, 24 are the reserve.
def _limits(remaining: int, reset: float) -> dict[str, str]:
    return {"RateLimit-Limit": "1200", "RateLimit-Remaining": str(remaining), "RateLimit-Reset": str(reset)}


async def test_without_limits_nobody_waits(pace: Pace, clock: Clock) -> None:
    for _ in range(100):
        await pace.turn(2)
        pace.note(200, {})
    assert clock.slept == []


async def test_what_remains_is_spread_over_the_time_that_remains(pace: Pace, clock: Clock) -> None:
    pace.note(200, _limits(remaining=84, reset=30))
    began = clock.now
    for _ in range(11):
        await pace.turn()
    assert clock.now - began == pytest.approx(5.0)  # ten gaps of half a second


async def test_a_write_takes_the_room_of_two_reads(pace: Pace, clock: Clock) -> None:
    pace.note(200, _limits(remaining=84, reset=30))
    await pace.turn(2)
    await pace.turn()
    assert clock.slept == [1.0]


async def test_an_answer_without_limits_ends_the_slowness(pace: Pace, clock: Clock) -> None:
    pace.note(200, _limits(remaining=30, reset=30))
    assert pace.gap == 5
    pace.note(200, {})
    assert pace.gap == 0
    await pace.turn()
    assert clock.slept == []


async def test_a_refusal_without_limits_does_not(pace: Pace) -> None:
    pace.note(200, _limits(remaining=30, reset=30))
    pace.note(500, {})
    assert pace.gap == 5


async def test_the_slowness_ends_with_its_minute(pace: Pace, clock: Clock) -> None:
    pace.note(200, _limits(remaining=30, reset=30))
    clock.now += 31
    assert pace.gap == 0


async def test_retry_after_keeps_every_call_waiting(pace: Pace, clock: Clock) -> None:
    pace.note(429, {"Retry-After": "7"})
    await pace.turn()
    assert clock.slept == [7.0]


async def test_a_503_with_retry_after_does_so_too(pace: Pace, clock: Clock) -> None:
    pace.note(503, {"Retry-After": "4"})
    await pace.turn()
    assert clock.slept == [4.0]


async def test_a_long_quiet_time_is_not_sat_out_but_told(pace: Pace, clock: Clock) -> None:
    pace.note(429, {"Retry-After": "90"})
    clock.now += 10
    with pytest.raises(HttpStatusError, match="another 80 s") as caught:
        await pace.turn()
    assert (caught.value.status, caught.value.retry_after) == (429, 80.0)
    assert clock.slept == []


async def test_nothing_left_means_quiet_until_the_reset(pace: Pace) -> None:
    pace.note(200, _limits(remaining=0, reset=31))
    with pytest.raises(HttpStatusError) as caught:
        await pace.turn()
    assert caught.value.retry_after == 31


async def test_who_was_refused_takes_no_turn(pace: Pace, clock: Clock) -> None:
    pace.note(200, _limits(remaining=25, reset=LONGEST_WAIT * 2))
    await pace.turn()
    for _ in range(5):
        with pytest.raises(HttpStatusError):
            await pace.turn()
    clock.now += LONGEST_WAIT * 1.5
    await pace.turn()
    assert clock.slept == [pytest.approx(LONGEST_WAIT / 2)]


@pytest.mark.parametrize("processes", [1, 4, 8])
async def test_processes_that_do_not_talk_share_the_budget_and_stay_within(processes: int) -> None:
    """Each calls as fast as its own pace lets it; the budget is theirs together."""
    limit, used, reset_at = 1200, 960, 160.0
    clocks = [Clock() for _ in range(processes)]
    paces = [Pace(clock=clock, sleep=clock.sleep) for clock in clocks]
    turns = [(100.0, number) for number in range(processes)]
    half_way = 0
    while turns:
        now, number = heapq.heappop(turns)
        clock, pace = clocks[number], paces[number]
        used += 1
        half_way = used if now < 130 else half_way
        clock.now = now + 0.05  # the call takes that long
        pace.note(200, _limits(limit - used, reset_at - clock.now))
        try:
            await pace.turn()
        except HttpStatusError:
            continue  # SharePoint would have refused from here on
        if clock.now < reset_at:
            heapq.heappush(turns, (clock.now, number))
    assert limit * 0.97 < used < limit
    assert half_way < 960 + 240 * 0.75  # spread, not spent at once
