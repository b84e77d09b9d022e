"""What `erni up` says of outages: each once, and that one is over only when an entry shows it."""

from __future__ import annotations

from typing import Any

from console.news import Troubles
from shared.delivery.heartbeat import ProcessInfo
from shared.operations.status import AgentStatus, Depth, PipelineStatus, ProcessStatus
from shared.retry.call_times import SlowCalls


def seen(**consumers: dict[str, Any]) -> PipelineStatus:
    """The uploader with these processes."""
    processes = [
        ProcessStatus(
            consumer=name,
            beat_seconds_ago=0.1,
            says=ProcessInfo(
                **{
                    "host": "vm-1",
                    "pid": 1,
                    "version": "1",
                    "started": 0.0,
                    "metrics_address": "",
                    "concurrency": 8,
                    "in_hand": 0,
                    **says,
                }
            ),
        )
        for name, says in consumers.items()
    ]
    depth = Depth(backlog=0, pending=0, oldest_seconds=0, delayed=0, dead=0)
    agent = AgentStatus(agent="sharepoint_uploader", processes=processes, depth=depth, paused_since=None)
    return PipelineStatus(agents=[agent], public={}, server_time=0)


DOWN: dict[str, Any] = {"breakers_open": ["sharepoint"], "done": 7}


def test_an_outage_and_its_end_are_said_once() -> None:
    troubles = Troubles()
    assert "SharePoint cannot be used now" in troubles.news(seen(a=DOWN))[0]
    assert troubles.news(seen(a=DOWN)) == []
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
