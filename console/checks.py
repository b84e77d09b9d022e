"""What `erni doctor` looks at: each outside part, one finding per question, each with what to do."""

from __future__ import annotations

import asyncio
import secrets
import time
from math import inf
from typing import TYPE_CHECKING, Any, Literal, TypeAlias
from urllib.parse import quote

import aiohttp
import msgspec
from obstore.exceptions import BaseError as StoreError
from redis.exceptions import NoPermissionError

from console.addresses import bare
from console.agent_state import judge
from console.disk_state import disks_of, is_full, stand_in_folder, store_folder
from console.durations import short
from console.errors import CommandError
from console.explain import (
    PATIENCE,
    foreign,
    leaving_no_folder,
    open_store,
    redis_trouble,
    require_store,
    store_trouble,
)
from console.system import not_running
from console.up_state import agent_states, process_troubles
from events import keys, topology
from events.connection import RedisError, connect, servers_of
from events.redis_address import shown
from shared.settings import Settings, SettingsError, merged_environment

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable

    from redis.asyncio import Redis

State: TypeAlias = Literal["ok", "failed", "skipped"]
_SECONDS = 8.0
"""How long one part may take. Parts are looked at side by side, so whoever asks knows the cause in ten."""
_SLOW_SECONDS = 1.0
"""What a question that costs a vision service nothing may take before it counts as slow. A choice."""


class Check(msgspec.Struct, frozen=True, kw_only=True):
    """One finding."""

    part: str
    state: State
    sentence: str


async def examine(settings: Settings) -> AsyncIterator[Check]:
    """Look at every part side by side; yield what was found in the order in which the parts have answered.

    What fails or is late does not stop the others, and nobody waits for the sum.
    """
    main = asyncio.create_task(_in_time("sharepoint", _sharepoint(settings)))
    looks = (
        # each of its commands has a limit of its own
        asyncio.create_task(_redis(settings)),
        main,
        # as long as there are libraries; each look has a limit of its own
        asyncio.create_task(_other_libraries(settings, main)),
        # the local model is work for this machine, not an answer to wait for
        asyncio.create_task(
            _vision(settings) if settings.vision_backend == "local" else _in_time("vision", _vision(settings))
        ),
        asyncio.create_task(_in_time("store", _store(settings))),
        asyncio.create_task(_in_time("disk", _this_machine(settings))),
        asyncio.create_task(_in_time("traces", _traces(settings))),
        asyncio.create_task(_in_time("decoder", _decoder(settings))),
    )
    try:
        for finished in asyncio.as_completed(looks):
            for check in await finished:
                yield check
    finally:
        for look in looks:
            look.cancel()
        await asyncio.gather(*looks, return_exceptions=True)


async def _in_time(part: str, look: Awaitable[list[Check]]) -> list[Check]:
    """Return what one look finds; where that takes too long, a finding which says so."""
    try:
        async with asyncio.timeout(_SECONDS):
            return await look
    except TimeoutError:
        return [_failed(part, f"no answer within {_SECONDS:.0f} s: it hangs, or answers slowly")]


def _ok(part: str, sentence: str) -> Check:
    return Check(part=part, state="ok", sentence=sentence)


def _failed(part: str, sentence: str) -> Check:
    return Check(part=part, state="failed", sentence=sentence)


def _without_room(part: str, what: str) -> Check:
    """Say that a part was not looked at, as the check of the disks says what is wrong and what to do."""
    return Check(part=part, state="skipped", sentence=f"not checked: the disk on which {what} is full")


async def _replicas(redis: Redis, settings: Settings) -> Check:
    """Whether each server has as many replicas as WAIT_REPLICAS waits for."""
    found: list[dict[str, Any]] = [await server.info("replication") for server in await servers_of(redis)]
    have = min(int(info.get("connected_slaves", 0)) for info in found)
    replicas = f"{have} replica" if have == 1 else f"{have} replicas"
    if have >= settings.wait_replicas:
        return _ok("redis", f"{replicas}, WAIT_REPLICAS={settings.wait_replicas} of them are waited for")
    return _failed(
        "redis",
        f"{replicas}, fewer than WAIT_REPLICAS={settings.wait_replicas}: nothing is acknowledged until"
        " there are as many. Start replicas, or set WAIT_REPLICAS lower",
    )


async def _redis(settings: Settings) -> list[Check]:
    from shared.delivery.startup import check_redis
    from shared.operations.memory import read_memory
    from shared.operations.status import read_status

    if why := not_running():
        return [_failed("redis", why)]
    redis = connect(
        settings.redis_url, password=str(settings.redis_password), client_name="erni-doctor", timeout=PATIENCE
    )
    try:
        if why := await foreign(redis, settings):
            return [_failed("redis", why)]
        findings = await check_redis(
            redis, lanes=settings.lanes, allow_volatile=settings.allow_volatile_redis
        )
        where, default = shown(settings.redis_url), not _names_redis()
        checks = [
            _ok("redis", f"answers at {where}{', the default: REDIS_URL is not set' if default else ''}")
        ]
        checks += [
            Check(part="redis", state="ok" if finding.ok else "failed", sentence=finding.sentence)
            for finding in findings
        ]
        if settings.wait_replicas:
            checks.append(await _replicas(redis, settings))
        memory = await read_memory(redis, lanes=settings.lanes)
        if memory.nearly_full:
            checks.append(_failed("redis", memory.sentence))
        checks += await _ownerless(redis, settings)
        checks += await _stranded(redis, settings)
        up = agent_states(settings)
        status = await read_status(redis, lanes=settings.lanes, alive_within=settings.lease_seconds)
        missing = [
            agent.agent
            for agent in status.agents
            if not agent.processes and not agent.frozen and agent.agent not in up
        ]
        problems = [
            sentence
            for agent in status.agents
            if agent.agent not in missing
            for sentence in judge(agent, inf, up).problems
        ]
        checks += [_failed("agents", sentence) for sentence in problems]
        if missing:
            checks.append(
                _failed(
                    "agents",
                    f"no process of {', '.join(missing)} runs on {where}: start `erni up`, or each with"
                    " python -m consumers AGENT",
                )
            )
        elif not problems:
            count = sum(len(agent.processes) for agent in status.agents)
            whose = "; they may be another system's, as REDIS_URL is not set" if default else ""
            checks.append(_ok("agents", f"{count} processes run on {where}{whose}"))
    except RedisError as error:
        return [_failed("redis", redis_trouble(error, settings))]
    else:
        return checks
    finally:
        await redis.aclose()


async def _ownerless(redis: Redis, settings: Settings) -> list[Check]:
    from shared.operations import ownerless

    found = {
        stage.agent: await ownerless.count(redis, stage, keys.all_lanes(settings.lanes))
        for stage in topology.STAGES
    }
    return [
        _failed(
            "redis",
            f"{count} entries of {agent} were read and belong to no process (XGROUP DELCONSUMER was used, or"
            " a power cut tore the log of Redis): a running process takes them in again within half a minute;"
            " start one, and see docs/reliability.md for the start of Redis",
        )
        for agent, count in found.items()
        if count
    ]


async def _stranded(redis: Redis, settings: Settings) -> list[Check]:
    from shared.operations.lanes import stranded

    try:
        found = await stranded(redis, settings.lanes)
    except NoPermissionError:
        return []
    if not found:
        return []
    what = ", ".join(
        f"{count} in lane {lane}" if lane else f"{count} of LANES=1" for lane, count in found.items()
    )
    return [
        _failed(
            "redis",
            f"entries wait in lanes that LANES={settings.lanes} does not have ({what}): a publisher has"
            f" another LANES, or it was changed. None is lost: run agents with LANES={max(1, *found)} too,"
            " until they are handed on",
        )
    ]


def _names_redis() -> bool:
    """Whether somebody said which Redis; else it is whatever listens at the default address."""
    return not {"REDIS_URL", "SESSION_REDIS_URL"}.isdisjoint(merged_environment())


async def _sharepoint(settings: Settings) -> list[Check]:
    from console.sharepoint_steps import Walk

    checks: list[Check] = []
    walk = Walk(settings)
    try:
        # a little less than `_in_time` allows: this sentence says more
        async with asyncio.timeout(_SECONDS - 0.5):
            async for sentence in walk.steps():
                checks.append(_ok("sharepoint", sentence))  # noqa: PERF401  # those before a failure count
    except CommandError as error:
        folder = stand_in_folder(settings)
        # it answers, so that it lacks nothing but room
        if checks and folder is not None and await asyncio.to_thread(is_full, folder):
            checks.append(_without_room("sharepoint", "the local stand-in keeps its files"))
        else:
            checks.append(_failed("sharepoint", str(error)))
    except TimeoutError:
        checks.append(_failed("sharepoint", walk.late))
    else:
        if walk.slow:
            checks.append(_failed("sharepoint", walk.slow))
    return checks


async def _other_libraries(settings: Settings, main: asyncio.Task[list[Check]]) -> list[Check]:
    """Look at the libraries that no setting names, if the configured one could be looked at."""
    from console.sharepoint_steps import SILENT, SLOW, other_libraries

    found = await asyncio.shield(main)
    signed_in = found and found[0].state == "ok"
    # where SharePoint is slow for one library, does not answer or has no room, it is so for all
    if (
        not signed_in
        or found[-1].state == "skipped"
        or any(word in found[-1].sentence for word in (SLOW, SILENT))
    ):
        return []
    try:
        others = await other_libraries(settings, require_store(settings))
    except (CommandError, StoreError, OSError):
        # the check of the store says it
        return []
    return [_ok("sharepoint", said) if fine else _failed("sharepoint", said) for fine, said in others]


async def _vision(settings: Settings) -> list[Check]:
    from shared.retry.errors import PermanentError, TransientError
    from shared.vision.choose import make_analyzer
    from shared.vision.people import face_finder

    redis = connect(settings.redis_url, password=str(settings.redis_password), client_name="erni-doctor")
    try:
        analyzer = make_analyzer(settings, redis)
        await analyzer.open()
        await analyzer.close()
        if (faces := face_finder(settings)) is not None:
            await faces.open()
    except (PermanentError, TransientError, SettingsError, OSError, ImportError) as error:
        return [_failed("vision", str(error))]
    finally:
        await redis.aclose()
    if settings.vision_backend == "local":
        return [_ok("vision", f"local model {analyzer.model} loads")]
    return [await _vision_service(settings, analyzer.model)]


async def _vision_service(settings: Settings, model: str) -> Check:
    """Whether the service lets us in: the list of its models costs nothing."""
    where = bare(settings.vision_url)
    key = str.__str__(settings.vision_api_key)
    url, headers = f"{settings.vision_url.rstrip('/')}/models", {"Authorization": f"Bearer {key}"}
    if settings.vision_api_version:
        version = quote(settings.vision_api_version)
        url = f"{settings.vision_url.rstrip('/')}/openai/models?api-version={version}"
        headers = {"api-key": key}
    started = time.monotonic()
    try:
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=_SECONDS - 0.5)) as session,
            session.get(url, headers=headers) as answer,
        ):
            status = answer.status
    except (aiohttp.ClientError, OSError, TimeoutError) as error:
        return _failed(
            "vision", f"{where} does not answer ({_short(error)}): check VISION_URL and the network"
        )
    if status in (401, 403):
        return _failed("vision", f"{where} does not let us in (HTTP {status}): check VISION_API_KEY")
    if status >= 500:
        return _failed("vision", f"{where} is unhealthy (HTTP {status}): try again later")
    if (seconds := time.monotonic() - started) > _SLOW_SECONDS:
        return _failed(
            "vision",
            f"{where} answers slowly: the list of its models took {short(seconds)}. Photos go on, slowly",
        )
    return _ok("vision", f"{where} answers; model {model}")


async def _store(settings: Settings) -> list[Check]:
    where = bare(settings.photo_store_url)
    key = f"reports/-/doctor-{secrets.token_hex(8)}"
    sample = secrets.token_bytes(64)
    try:
        with leaving_no_folder(settings):
            store = open_store(settings)
            reference = await store.put(key, sample)
            same = await store.get(reference) == sample
            await store.delete(reference)
    except CommandError as error:
        return [_failed("store", str(error))]
    except (StoreError, OSError) as error:
        folder = store_folder(settings)
        if folder is not None and await asyncio.to_thread(is_full, folder):
            return [_without_room("store", "it keeps its files")]
        return [_failed("store", store_trouble(error, settings))]
    if not same:
        return [_failed("store", f"{where} returned other bytes than were written")]
    return [_ok("store", f"{where}: written, read and deleted")]


async def _this_machine(settings: Settings) -> list[Check]:
    """Look at the disks of this machine on which the system keeps data, and for frozen processes."""
    # a network drive may hang
    disks = await asyncio.to_thread(disks_of, settings)
    checks = [_failed("disk", disk.trouble) if disk.trouble else _ok("disk", disk.sentence) for disk in disks]
    return checks + [_failed(name, sentence) for name, sentence in process_troubles(settings).items()]


async def _traces(settings: Settings) -> list[Check]:
    """Send an empty export, to where the agents send their spans and in the same way."""
    from shared.telemetry.trace_target import apply_variables, trace_target

    target = trace_target(settings, apply_variables())
    if target.off:
        return [Check(part="traces", state="skipped", sentence=target.off)]
    if target.problems:
        return [_failed("traces", f"tracing is off: {'; '.join(target.problems)}")]
    from shared.telemetry.export import send_nothing

    where = f"{bare(target.endpoint)} ({target.protocol})"
    trouble = await asyncio.to_thread(send_nothing, target)
    if not trouble:
        return [_ok("traces", f"{where} takes traces; links go to {bare(settings.jaeger_url)}")]
    return [
        _failed(
            "traces",
            f"{where} takes no traces: start a collector, set OTLP_ENDPOINT, or ENABLE_TRACING=0. Photos go"
            f" on without traces. ({trouble.splitlines()[0][:200]})",
        )
    ]


async def _decoder(_: Settings) -> list[Check]:
    """Say it only where the kernel does not help; agents may run on another machine."""
    from shared.photos.system_calls import refusal_possible

    why = refusal_possible()
    sentence = f"on this machine only limits keep a photo decoder from files and the network ({why})"
    return [Check(part="decoder", state="skipped", sentence=sentence)] if why else []


def _short(error: BaseException) -> str:
    from shared.retry.classify import sentence_of

    return sentence_of(error).splitlines()[0][:200]
