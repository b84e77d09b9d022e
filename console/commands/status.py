"""`erni status`: how the pipeline stands, agent by agent."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from console import durations
from console.arguments import checked, describe
from console.errors import CommandError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from redis.asyncio import Redis

    from console.agent_state import Judgement
    from console.output import Output
    from shared.operations.status import PipelineStatus
    from shared.settings import Settings

_BEAT: Final = 1.0
"""Seconds between two looks: processes report once a second how much they have done."""


def arguments(parser: argparse.ArgumentParser) -> None:
    """`erni status [--watch]`."""
    describe(
        parser,
        "Show the pipeline, agent by agent: processes, entries in flight (a process has them), backlog "
        "(nobody has them yet), age of the oldest entry, entries per second, postponed entries, dead "
        "letters, and the state. ok. slow: an outside part takes much longer than usual. waiting: for an "
        "outside part or for postponed entries. failing: most of the last 20 entries died, or the last five "
        "of one cause. missing: no process. frozen: a process exists and does nothing. paused. Exit "
        "code 1 for failing, missing, frozen, paused, an open breaker, an unhealthy process, an old backlog.",
        "erni status",
        "erni status --watch",
        "erni status --json | jq '.agents[] | {agent, state, backlog}'",
        run=status,
    )
    parser.add_argument("--watch", action="store_true", help="redraw every second until Ctrl-C")
    parser.add_argument(
        "--max-age",
        metavar="DURATION",
        type=checked(durations.seconds),
        default=600.0,
        help="an older backlog is wrong (default: 10m)",
    )


async def status(options: argparse.Namespace, output: Output) -> int:
    """Print it once, or again and again."""
    from console import system
    from console.agent_state import judge
    from console.disk_state import problems_here
    from console.explain import no_trace, redis_client
    from console.up_state import agent_states
    from shared.operations.memory import read_memory

    if options.watch and options.json:
        raise CommandError("--watch and --json exclude each other: JSON is one document", code=2)
    if options.watch:
        from console.status_watch import watch

        return await watch(output, options.max_age)
    settings = system.load()
    async with redis_client(settings) as redis:
        before = await _look(redis, settings)
        await asyncio.sleep(_BEAT)
        # asked first: a process that is ready in between is there when Redis is asked
        up = agent_states(settings)
        now = await _look(redis, settings)
        strange = "" if up else await no_trace(redis, settings)
        memory = await read_memory(redis, lanes=settings.lanes)
    judged = [judge(agent, options.max_age, up) for agent in now.agents]
    wrong = await asyncio.to_thread(problems_here, settings)
    wrong += [sentence for one in judged for sentence in one.problems] + [*filter(None, [strange])]
    wrong += [memory.sentence] if memory.nearly_full else []
    rates = rates_between(before, now)
    output.answer({**document(now, rates, judged, wrong), "memory": _fields(memory)})
    if not output.as_json:
        from console import status_table

        output.console.print(status_table.table(now, rates, judged))
        for sentence in wrong:
            output.tell(sentence, style="red", indent=2)
        for sentence in (sentence for one in judged for sentence in one.notes):
            output.tell(sentence, style="yellow", indent=2)
        for line in status_table.footer(now, settings):
            output.say(line)
    return 1 if wrong else 0


async def _look(redis: Redis, settings: Settings) -> PipelineStatus:
    from shared.operations.status import read_status

    return await read_status(redis, lanes=settings.lanes, alive_within=settings.lease_seconds)


def rates_between(before: PipelineStatus, now: PipelineStatus) -> dict[str, float]:
    """Return entries ended per second between two looks, by processes that were there both times."""
    elapsed = max(now.server_time - before.server_time, 0.001)
    earlier = {p.consumer: p.says.done for agent in before.agents for p in agent.processes}
    return {
        agent.agent: round(
            sum(p.says.done - earlier.get(p.consumer, p.says.done) for p in agent.processes) / elapsed, 2
        )
        for agent in now.agents
    }


def document(
    status: PipelineStatus, rates: dict[str, float], judged: Sequence[Judgement], wrong: list[str]
) -> dict[str, object]:
    """Return the JSON of `erni status`."""
    return {
        "server_time": status.server_time,
        "agents": [
            {
                "agent": agent.agent,
                "state": one.word,
                "processes": [
                    {"consumer": p.consumer, "beat_seconds_ago": p.beat_seconds_ago, **_fields(p.says)}
                    for p in agent.processes
                ],
                "in_hand": agent.in_hand,
                "backlog": agent.depth.backlog,
                "pending": agent.depth.pending,
                "oldest_seconds": agent.depth.oldest_seconds,
                "rate_per_second": rates.get(agent.agent, 0.0),
                "postponed": agent.depth.delayed,
                "dead": agent.depth.dead,
                "breakers_open": agent.breakers_open,
                "paused_since": agent.paused_since,
            }
            for agent, one in zip(status.agents, judged, strict=True)
        ],
        "public": status.public,
        "problems": wrong,
        "notes": [sentence for one in judged for sentence in one.notes],
    }


def _fields(record: object) -> dict[str, object]:
    import msgspec

    fields: dict[str, object] = msgspec.to_builtins(record)
    return fields
