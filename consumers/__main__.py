"""Start one agent: ``python -m consumers vision_analyzer [--concurrency N] [--lanes 1-4]``."""

from __future__ import annotations

import signal

if __name__ == "__main__":
    # before the imports that take a second
    from shared.process_exit import end_at

    end_at(signal.SIGTERM, signal.SIGINT)

import argparse
import asyncio
import importlib
import inspect
import os
import re
import sys
from typing import TYPE_CHECKING, Any, Final

import msgspec
import structlog

from events import keys, topology
from events.connection import RedisError, connect
from events.redis_address import shown
from shared import settings as settings_module
from shared.delivery.agent import Agent
from shared.delivery.process import AgentProcess, consumer_name
from shared.delivery.startup import RedisUnfitError
from shared.operations import background, joining
from shared.photo_store import StoreUnhealthyError
from shared.process_exit import leave
from shared.retry.errors import PermanentError
from shared.settings import Settings, SettingsError
from shared.telemetry.logs import configure_logging
from shared.telemetry.manager import TelemetryManager

if TYPE_CHECKING:
    from collections.abc import Sequence

DONE: Final = 0
FAILED: Final = 1
WRONG_USAGE: Final = 2
_log = structlog.get_logger(__name__)


def agent_class(name: str) -> type[Agent[Any, Any]]:
    """The agent of that name, from the module of that name. Raises LookupError if it holds none."""
    module = importlib.import_module(f"consumers.{name}")
    for _, found in inspect.getmembers(module, inspect.isclass):
        if issubclass(found, Agent) and found.__module__ == module.__name__ and found.name == name:
            return found
    raise LookupError(f"consumers/{name}.py holds no Agent whose name is {name!r}")


def parse_lanes(text: str, lanes: int) -> tuple[keys.Keys, ...]:
    """The lanes meant by ``2``, ``1-4`` or ``1,3``, of `lanes` in all. Raises ValueError with a sentence."""
    chosen: set[int] = set()
    for part in text.split(","):
        bounds = re.fullmatch(r"\s*(\d+)(?:-(\d+))?\s*", part)
        if not bounds:
            raise ValueError(f"--lanes {text!r}: give numbers and ranges, such as 1-4 or 1,3")
        chosen.update(range(int(bounds[1]), int(bounds[2] or bounds[1]) + 1))
    if not chosen or min(chosen) < 1 or max(chosen) > lanes:
        raise ValueError(f"--lanes {text!r}: there are lanes 1 to {lanes} (LANES={lanes})")
    every = keys.all_lanes(lanes)
    return tuple(every[number - 1] for number in sorted(chosen))


def _at_least_one(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no number from 1 upward")
    return int(text)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m consumers",
        description="Run one agent process. Start several to scale; SIGTERM stops one and loses nothing.",
        epilog="example: python -m consumers vision_analyzer --concurrency 4",
    )
    parser.add_argument("agent", choices=topology.CONSUMERS, help="which agent")
    parser.add_argument(
        "--concurrency", type=_at_least_one, metavar="N", help="entries in flight at once (CONCURRENCY)"
    )
    parser.add_argument("--lanes", metavar="1-4", help="only these lanes of LANES")
    return parser


async def _run(name: str, settings: Settings, lanes: tuple[keys.Keys, ...]) -> None:
    consumer = consumer_name()
    configure_logging(settings, agent=name, consumer=consumer)
    telemetry = TelemetryManager(settings, agent=name, consumer=consumer)
    telemetry.start()
    redis = connect(settings.redis_url, password=str(settings.redis_password), client_name=f"erni:{name}")
    telemetry.instrument_redis(redis)
    try:
        process = AgentProcess(
            agent_class(name)(settings, redis),
            settings,
            consumer=consumer,
            lanes=lanes,
            spans=telemetry.deliveries,
            background=_jobs,
            join=joining.join,
        )
        process.handle_signals()
        await process.run()
    finally:
        await redis.aclose()
        telemetry.shutdown()


async def _jobs(process: AgentProcess) -> None:
    async with asyncio.TaskGroup() as jobs:
        jobs.create_task(joining.announce(process.redis, process.runtime.settings))
        jobs.create_task(background.run(process))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run until SIGTERM; return the exit code."""
    given = _parser().parse_args(arguments)
    try:
        settings = settings_module.load()
        if given.concurrency is not None:
            settings = msgspec.structs.replace(settings, concurrency=given.concurrency)
        every = keys.all_lanes(settings.lanes)
        lanes = parse_lanes(given.lanes, settings.lanes) if given.lanes else every
    except (SettingsError, ValueError) as error:
        sys.stderr.write(f"{given.agent}: {error}\n")
        return WRONG_USAGE
    try:
        import uvloop

        uvloop.run(_run(given.agent, settings, lanes))
    except SettingsError as error:
        sys.stderr.write(f"{given.agent}: {error}\n")
        return WRONG_USAGE
    except (RedisUnfitError, StoreUnhealthyError, PermanentError, joining.OtherSystemError) as error:
        sys.stderr.write(f"{given.agent} does not start: {error}\n")
        return FAILED
    except RedisError as error:
        address = shown(settings.redis_url)
        sys.stderr.write(f"{given.agent} does not start: Redis at {address} refuses: {error}\n")
        return FAILED
    except Exception:  # noqa: BLE001 - the last stop: said with its traceback, then the exit code
        _log.exception("the agent failed")
        return FAILED
    return DONE


if __name__ == "__main__":
    # photos and reports are for this user
    os.umask(0o077)
    leave(main())
