"""What `erni doctor` looks at: each outside part, one finding per question, each with what to do."""

from __future__ import annotations

import asyncio
import secrets
from math import inf
from typing import TYPE_CHECKING, Literal, TypeAlias
from urllib.parse import quote

import aiohttp
import msgspec
from obstore.exceptions import BaseError as StoreError

from console.addresses import bare
from console.agent_state import judge
from console.errors import CommandError
from console.explain import PATIENCE, open_store, redis_trouble, store_trouble
from events import keys, topology
from events.connection import RedisError, connect
from events.redis_address import shown
from shared.settings import Settings, SettingsError, merged_environment

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from redis.asyncio import Redis

State: TypeAlias = Literal["ok", "failed", "skipped"]
_SECONDS = 30.0
"""How long one part may take."""
_LATE = f"no answer within {_SECONDS:.0f} s"


class Check(msgspec.Struct, frozen=True, kw_only=True):
    """One finding."""

    part: str
    state: State
    sentence: str


async def examine(settings: Settings) -> AsyncIterator[Check]:
    """Look at every part; what fails does not stop the others."""
    for part, look, seconds in (
        ("redis", _redis, _SECONDS),
        # as long as there are libraries; each look has a limit of its own
        ("sharepoint", _sharepoint, None),
        ("vision", _vision, _SECONDS),
        ("store", _store, _SECONDS),
        ("traces", _traces, _SECONDS),
        ("decoder", _decoder, _SECONDS),
    ):
        try:
            async with asyncio.timeout(seconds):
                for check in await look(settings):
                    yield check
        except TimeoutError:
            yield _failed(part, _LATE)


def _ok(part: str, sentence: str) -> Check:
    return Check(part=part, state="ok", sentence=sentence)


def _failed(part: str, sentence: str) -> Check:
    return Check(part=part, state="failed", sentence=sentence)


async def _redis(settings: Settings) -> list[Check]:
    from shared.delivery.startup import check_redis
    from shared.operations.memory import read_memory
    from shared.operations.status import read_status

    redis = connect(
        settings.redis_url, password=str(settings.redis_password), client_name="erni-doctor", timeout=PATIENCE
    )
    try:
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
        memory = await read_memory(redis, lanes=settings.lanes)
        if memory.nearly_full:
            checks.append(_failed("redis", memory.sentence))
        checks += await _ownerless(redis, settings)
        status = await read_status(redis, lanes=settings.lanes, alive_within=settings.lease_seconds)
        missing = [agent.agent for agent in status.agents if not agent.processes and not agent.frozen]
        problems = [
            sentence
            for agent in status.agents
            if agent.agent not in missing
            for sentence in judge(agent, inf).problems
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
        for stage in topology.PIPELINE
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


def _names_redis() -> bool:
    """Whether somebody said which Redis; else it is whatever listens at the default address."""
    return not {"REDIS_URL", "SESSION_REDIS_URL"}.isdisjoint(merged_environment())


async def _sharepoint(settings: Settings) -> list[Check]:
    from console.sharepoint_steps import other_libraries, steps

    checks: list[Check] = []
    try:
        async with asyncio.timeout(_SECONDS):
            async for sentence in steps(settings):
                checks.append(_ok("sharepoint", sentence))  # noqa: PERF401  # those before a failure count
    except CommandError as error:
        checks.append(_failed("sharepoint", str(error)))
    except TimeoutError:
        checks.append(_failed("sharepoint", _LATE))
    if not checks or checks[0].state == "failed":
        # without a sign-in the other libraries fail alike
        return checks
    try:
        others = await other_libraries(settings, open_store(settings))
    except (CommandError, StoreError, OSError):
        # the check of the store says it
        return checks
    return checks + [
        _ok("sharepoint", said) if fine else _failed("sharepoint", said) for fine, said in others
    ]


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
    try:
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=10)) as session,
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
    return _ok("vision", f"{where} answers; model {model}")


async def _store(settings: Settings) -> list[Check]:
    where = bare(settings.photo_store_url)
    key = f"reports/-/doctor-{secrets.token_hex(8)}"
    sample = secrets.token_bytes(64)
    try:
        store = open_store(settings)
        reference = await store.put(key, sample)
        same = await store.get(reference) == sample
        await store.delete(reference)
    except CommandError as error:
        return [_failed("store", str(error))]
    except (StoreError, OSError) as error:
        return [_failed("store", store_trouble(error, settings))]
    if not same:
        return [_failed("store", f"{where} returned other bytes than were written")]
    return [_ok("store", f"{where}: written, read and deleted")]


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
    return (str(error) or type(error).__name__).splitlines()[0][:200]
