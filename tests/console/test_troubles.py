"""What `erni up` says of agents: each trouble once, and that one is over only when an entry shows it."""

from __future__ import annotations

from typing import Any

import msgspec

from console.troubles import Troubles
from shared.delivery.heartbeat import ProcessInfo
from shared.operations.status import AgentStatus, Depth, PipelineStatus, ProcessStatus
from shared.retry.call_times import SlowCalls


def process(name: str, *, ago: float = 0.1, **says: Any) -> ProcessStatus:
    known = {
        "host": "vm-1",
        "pid": 1,
        "version": "1",
        "started": 0.0,
        "metrics_address": "",
        "concurrency": 8,
        "in_hand": 0,
    }
    return ProcessStatus(consumer=name, beat_seconds_ago=ago, says=ProcessInfo(**{**known, **says}))


def seen(
    frozen: list[ProcessStatus] | None = None,
    depth: dict[str, Any] | None = None,
    **consumers: dict[str, Any],
) -> PipelineStatus:
    """The uploader with these processes."""
    processes = [process(name, **says) for name, says in consumers.items()]
    empty = {"backlog": 0, "pending": 0, "oldest_seconds": 0, "delayed": 0, "dead": 0}
    agent = AgentStatus(
        agent="sharepoint_uploader",
        processes=processes,
        depth=Depth(**{**empty, **(depth or {})}),
        paused_since=None,
        frozen=frozen or [],
    )
    return PipelineStatus(agents=[agent], public={}, server_time=0)


DOWN: dict[str, Any] = {"breakers_open": ["sharepoint"], "done": 7}


def test_an_outage_and_its_end_are_said_once() -> None:
    troubles = Troubles()
    assert "SharePoint cannot be used now" in troubles.news(seen(a=DOWN))[0]
    assert troubles.news(seen(a=DOWN)) == []
    assert troubles.news(seen(a={"done": 8})) == []
    assert troubles.news(seen(a={"done": 8})) == [
        "sharepoint_uploader: SharePoint works again, and its photos go on"
    ]
    assert troubles.news(seen(a={"done": 9})) == []


def test_the_end_of_the_process_that_reported_an_outage_is_not_its_end() -> None:
    troubles = Troubles()
    troubles.news(seen(a=DOWN, b={"done": 40}))
    assert troubles.news(seen(b={"done": 40})) == []
    assert troubles.news(seen()) == []
    # the process that replaces it finds the same outage, which was said
    assert troubles.news(seen(c={**DOWN, "done": 0})) == []
    assert troubles.news(seen(c={"done": 0})) == []
    assert "works again" in troubles.news(seen(c={"done": 1}))[0]


def test_a_part_that_becomes_slow_is_said() -> None:
    troubles = Troubles()
    slow = {"slow_parts": {"sharepoint": SlowCalls(method="GET", seconds_now=1.0, seconds_usual=0.05)}}
    assert "SharePoint answers slowly" in troubles.news(seen(a=slow))[0]
    assert troubles.news(seen(a=slow)) == []


SLOW: dict[str, Any] = {
    "slow_parts": {"sharepoint": SlowCalls(method="GET", seconds_now=1.0, seconds_usual=0.05)}
}
SILENT: dict[str, Any] = {
    "slow_parts": {"sharepoint": SlowCalls(method="GET", seconds_now=9.0, seconds_usual=0.05, answers=False)}
}


def test_a_slow_part_that_falls_silent_is_not_as_fast_as_usual_again() -> None:
    troubles = Troubles()
    troubles.news(seen(a={**SLOW, "done": 7}))
    (said,) = troubles.news(seen(a={**SILENT, "done": 7}))
    assert "SharePoint does not answer" in said
    assert [troubles.news(seen(a={**SILENT, "done": 8})) for _ in range(6)] == [[]] * 6
    # a call that timed out, and the next one that waits, is no answer
    assert [troubles.news(seen(a={"done": 8})) for _ in range(6)] == [[]] * 6
    assert [troubles.news(seen(a={**SLOW, "done": 8})) for _ in range(6)] == [[]] * 6
    # one end for both
    assert [troubles.news(seen(a={"done": 9})) for _ in range(6)] == [
        [],
        ["sharepoint_uploader: SharePoint works again, and its photos go on"],
        [],
        [],
        [],
        [],
    ]


def test_the_slow_entries_of_a_part_that_goes_down_are_not_fast_again() -> None:
    troubles = Troubles()
    (said,) = troubles.news(seen(a={"seconds_now": 4.0, "seconds_usual": 0.2, "done": 7}))
    assert "sharepoint_uploader" in said
    assert "cannot be used now" in troubles.news(seen(a={**DOWN, "done": 7}))[0]
    assert [troubles.news(seen(a={**DOWN, "done": 8})) for _ in range(6)] == [[]] * 6


def test_entries_that_died_do_not_go_well_because_a_part_is_down() -> None:
    troubles = Troubles()
    dying: dict[str, Any] = {"depth": {"dead": 5}, "a": {"recent": "xxxxx", "done": 7}}
    assert "sharepoint_uploader" in troubles.news(seen(**dying))[0]
    troubles.news(seen(depth={"dead": 5}, a={**DOWN, "recent": "xxxxx"}))
    assert [troubles.news(seen(depth={"dead": 5}, a={**DOWN, "done": 8})) for _ in range(6)] == [[]] * 6
    # nor because a new process has seen no entry yet
    assert [troubles.news(seen(depth={"dead": 5}, b={"done": 0})) for _ in range(6)] == [[]] * 6


def test_another_cause_under_the_same_state_is_said_once() -> None:
    troubles = Troubles()

    def died(cause: str, message: str) -> list[str]:
        status = seen(depth={"dead": 5}, a={"recent": "xxxxx", "done": 7})
        agent = msgspec.structs.replace(status.agents[0], last_death=message, last_death_cause=cause)
        return troubles.news(msgspec.structs.replace(status, agents=[agent]))

    prose, page = ("c1", "the model answered prose"), ("c2", "the model answered an HTML page")
    assert "prose" in died(*prose)[0]
    assert died("c1", "the model answered prose for photo 8") == []
    assert "HTML" in died(*page)[0]
    # photos die of both, in turn
    assert [died(*prose), died(*page), died(*prose)] == [[], [], []]


def test_an_outage_whose_reason_changes_is_said_again_and_not_for_numbers() -> None:
    troubles = Troubles()

    def down(reason: str) -> list[str]:
        return troubles.news(seen(a={**DOWN, "breaker_reasons": {"sharepoint": reason}}))

    assert len(down("it answered 503 after 1.2 s")) == 1
    assert down("it answered 502 after 30 s [request-id 4f]") == []
    assert "no sign-in" in down("no sign-in: the secret has expired")[0]


def test_the_end_of_one_targets_outage_is_said_while_another_one_lasts() -> None:
    troubles = Troubles()
    both = {"breakers_open": ["webhook/wh_1", "webhook/wh_2"], "done": 7}
    assert len(troubles.news(seen(a=both))) == 2
    one = {"breakers_open": ["webhook/wh_2"], "done": 8}
    assert [troubles.news(seen(a=one)) for _ in range(3)] == [
        [],
        ["sharepoint_uploader: wh_1 works again, and its notices go on"],
        [],
    ]


def test_a_frozen_process_and_its_end_are_said_once() -> None:
    troubles = Troubles()
    stopped = process("a", ago=5, pid=77)
    (said,) = troubles.news(seen(frozen=[stopped]))
    assert "pid 77 on vm-1) is frozen or was killed (no heartbeat for 5.0s)" in said
    assert troubles.news(seen(frozen=[process("a", ago=6, pid=77)])) == []
    assert [troubles.news(seen(a={"pid": 77})) for _ in range(4)] == [
        [],
        [],
        ["sharepoint_uploader: process 77 goes on"],
        [],
    ]


def test_of_a_frozen_process_that_was_killed_the_supervisor_says_the_end() -> None:
    troubles = Troubles()
    troubles.news(seen(frozen=[process("a", ago=5, pid=77)]))
    assert [troubles.news(seen(b={"pid": 78})) for _ in range(4)] == [[]] * 4


def test_an_unhealthy_process_is_said_until_an_entry_goes_well() -> None:
    troubles = Troubles()
    full = "the photo store /data cannot be used (no space left on device; 0.0 of 40.0 MB free)"
    (said,) = troubles.news(seen(a={"unwell": full, "done": 7}))
    assert said == f"sharepoint_uploader: the process a is unhealthy: {full}"
    # only the number of free bytes has changed
    assert troubles.news(seen(a={"unwell": full.replace("0.0", "0.1"), "done": 7})) == []
    assert [troubles.news(seen(a={"done": 7})) for _ in range(5)] == [[]] * 5
    assert troubles.news(seen(a={"done": 8})) == ["sharepoint_uploader: healthy again, and its photos go on"]


def test_photos_that_are_postponed_are_said_with_the_reason_until_they_have_gone_on() -> None:
    troubles = Troubles()
    waits = {"delayed": 3, "next_due": 1_795_856_400.0, "next_reason": "SharePoint answered 507"}
    # the outage behind it may be reported a second later, and then it says more
    assert troubles.news(seen(depth=waits, a={"done": 7})) == []
    (said,) = troubles.news(seen(depth=waits, a={"done": 7}))
    assert "3 entries are postponed, the first until 09:00:00Z" in said
    assert "SharePoint answered 507" in said
    # they are being tried again
    assert [troubles.news(seen(a={"done": 7})) for _ in range(5)] == [[]] * 5
    assert troubles.news(seen(depth=waits, a={"done": 7})) == []
    assert troubles.news(seen(a={"done": 10})) == []
    assert troubles.news(seen(a={"done": 10})) == ["sharepoint_uploader: no entry is postponed any more"]
