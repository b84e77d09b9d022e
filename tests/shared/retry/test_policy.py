"""Three attempts, 4 and 8 seconds apart, for what may pass; nothing else waits."""

from __future__ import annotations

import asyncio
import errno
import ssl
from typing import TYPE_CHECKING, Any

import aiohttp
import msgspec
import pytest
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ResponseError

from shared.retry import policy
from shared.retry.breaker import LONGEST_PROBE, OPEN_AFTER, Breakers
from shared.retry.classify import Kind, classify, sentence_of
from shared.retry.errors import (
    HttpStatusError,
    PermanentError,
    PostponeError,
    TransientError,
    dependency,
    dependency_of,
)
from shared.retry.limit import TimeLimits

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

CONNECTION_KEY: Any = None


def os_error(number: int) -> OSError:
    return OSError(number, "said the system")


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (TransientError("x"), Kind.TRANSIENT),
        (ConnectionResetError(), Kind.TRANSIENT),
        (TimeoutError(), Kind.TRANSIENT),
        (aiohttp.ServerDisconnectedError(), Kind.TRANSIENT),
        (aiohttp.SocketTimeoutError(), Kind.TRANSIENT),
        (aiohttp.ClientPayloadError(), Kind.TRANSIENT),
        (HttpStatusError("x", status=500), Kind.TRANSIENT),
        (HttpStatusError("x", status=503), Kind.TRANSIENT),
        (HttpStatusError("x", status=429), Kind.TRANSIENT),
        (HttpStatusError("x", status=404), Kind.PERMANENT),
        (HttpStatusError("x", status=409), Kind.PERMANENT),
        (ssl.SSLCertVerificationError(), Kind.PERMANENT),
        (PermanentError("x"), Kind.PERMANENT),
        (ValueError(), Kind.PERMANENT),
        (KeyError("x"), Kind.PERMANENT),
        (FileNotFoundError(), Kind.PERMANENT),
        (PermissionError(), Kind.PERMANENT),
        (msgspec.ValidationError(), Kind.PERMANENT),
        (ZeroDivisionError(), Kind.PERMANENT),
        (PostponeError("x", 60), Kind.POSTPONE),
        (os_error(errno.ENOSPC), Kind.UNHEALTHY),
        (os_error(errno.EMFILE), Kind.UNHEALTHY),
        (os_error(errno.EIO), Kind.UNHEALTHY),
        (os_error(errno.ENOMEM), Kind.UNHEALTHY),
        (RuntimeError("can't start new thread"), Kind.UNHEALTHY),
        (RuntimeError("x"), Kind.PERMANENT),
        (os_error(errno.EROFS), Kind.UNHEALTHY),
        (RedisConnectionError(), Kind.UNHEALTHY),
        (ResponseError("WRONGTYPE Operation against a key"), Kind.PERMANENT),
        (MemoryError(), Kind.PERMANENT),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else value.value,
)
def test_every_failure_has_its_kind(error: BaseException, kind: Kind) -> None:
    assert classify(error) is kind


def test_a_certificate_error_is_permanent_though_it_is_a_connection_error() -> None:
    error = aiohttp.ClientConnectorCertificateError(CONNECTION_KEY, ssl.CertificateError("expired"))
    assert isinstance(error, aiohttp.ClientConnectionError)
    assert classify(error) is Kind.PERMANENT


def test_too_many_open_files_is_this_machine_even_inside_a_connection_error() -> None:
    error = aiohttp.ClientConnectorError(CONNECTION_KEY, OSError(errno.EMFILE, "Too many open files"))
    assert classify(error) is Kind.UNHEALTHY


class Recorder:
    def __init__(self) -> None:
        self.waits: list[float] = []

    def retrying(self, attempt: int, wait: float, error: BaseException) -> None:
        assert str(error)
        assert attempt == len(self.waits) + 1
        self.waits.append(wait)


async def attempts(
    call: Callable[[], Awaitable[str]], breakers: Breakers | None = None
) -> tuple[policy.Succeeded[str] | policy.Failed, list[float]]:
    recorder = Recorder()
    task: Any = asyncio.current_task()
    with policy.without_waiting(), TimeLimits(5.0).of(task) as limit:
        result = await policy.attempt(
            lambda _: call(),
            None,
            limit=limit,
            breakers=breakers or Breakers(()),
            observer=recorder,
            stopping=asyncio.Event(),
        )
    return result, recorder.waits


def failing(error: Exception) -> Callable[[], Awaitable[str]]:
    async def call() -> str:
        raise error

    return call


async def test_the_waits_are_four_and_eight_seconds_and_a_little() -> None:
    result, waits = await attempts(failing(TransientError("no")))
    assert isinstance(result, policy.Failed)
    assert result.kind is Kind.TRANSIENT
    assert len(result.failures) == 3
    assert 4 <= waits[0] <= 4.5
    assert 8 <= waits[1] <= 8.5
    assert len(waits) == 2


@pytest.mark.parametrize(("asked", "low", "high"), [(0.0, 4, 4.5), (7.0, 7, 7.5), (10.0, 10, 10)])
async def test_retry_after_is_kept_between_four_and_ten_seconds(
    asked: float, low: float, high: float
) -> None:
    _, waits = await attempts(failing(HttpStatusError("busy", status=429, retry_after=asked)))
    assert all(low <= wait <= high for wait in waits)
    assert len(waits) == 2


async def test_a_longer_retry_after_postpones_after_one_attempt() -> None:
    result, waits = await attempts(failing(HttpStatusError("busy", status=503, retry_after=11.0)))
    assert isinstance(result, policy.Failed)
    assert (result.kind, result.seconds, waits) == (Kind.POSTPONE, 11.0, [])


async def test_a_permanent_error_is_tried_once() -> None:
    calls = 0

    async def call() -> str:
        nonlocal calls
        calls += 1
        raise PermanentError("never")

    result, waits = await attempts(call)
    assert isinstance(result, policy.Failed)
    assert (result.kind, calls, waits) == (Kind.PERMANENT, 1, [])


async def test_a_first_try_that_succeeds_builds_no_tenacity(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: object, **__: object) -> None:
        raise AssertionError("tenacity was built for a success")

    monkeypatch.setattr(policy, "AsyncRetrying", never)

    async def call() -> str:
        return "done"

    result, _ = await attempts(call)
    assert result == policy.Succeeded("done")


async def test_a_part_that_answers_nobody_postpones_the_only_photo_there_is() -> None:
    breakers = Breakers({"sharepoint"})

    def failing_part(name: str) -> Callable[[], Awaitable[str]]:
        async def call() -> str:
            with dependency(name):
                raise TransientError("no answer")

        return call

    result, waits = await attempts(failing_part("sharepoint"), breakers)
    assert isinstance(result, policy.Failed)
    assert (result.kind, len(waits)) == (Kind.POSTPONE, 2)
    assert breakers.open_names == ["sharepoint"]
    # one web server of many: its photo has had its attempts
    result, _ = await attempts(failing_part("source"), breakers)
    assert isinstance(result, policy.Failed)
    assert result.kind is Kind.TRANSIENT


async def test_where_others_were_answered_it_is_the_photo() -> None:
    breakers = Breakers({"sharepoint"})

    async def call() -> str:
        # another photo's answer, before each of our attempts
        breakers.succeeded({"sharepoint"})
        with dependency("sharepoint"):
            raise TransientError("a photo that SharePoint cannot stand")

    result, _ = await attempts(call, breakers)
    assert isinstance(result, policy.Failed)
    assert result.kind is Kind.TRANSIENT
    assert breakers.open_names == []


async def test_failures_in_a_row_open_the_breaker_and_then_postpone() -> None:
    changes: list[tuple[str, bool]] = []
    breakers = Breakers({"sharepoint"}, on_change=lambda name, is_open: changes.append((name, is_open)))

    async def call() -> str:
        with dependency("sharepoint"):
            raise TransientError("no answer")

    for _ in range(OPEN_AFTER):
        assert not breakers.is_open("sharepoint")
        breakers.failed("sharepoint")
    result, waits = await attempts(call, breakers)
    assert isinstance(result, policy.Failed)
    assert result.kind is Kind.POSTPONE
    assert waits == []
    assert breakers.reading_stopped

    async def out_of_a_cache() -> str:
        return "known"

    await attempts(out_of_a_cache, breakers)
    assert breakers.open_names == ["sharepoint"]

    async def well() -> str:
        with dependency("sharepoint"):
            return "back"

    await attempts(well, breakers)
    assert breakers.open_names == []
    assert changes == [("sharepoint", True), ("sharepoint", False)]


async def test_a_refusal_is_an_answer_even_where_the_agent_says_it_in_its_own_words() -> None:
    breakers = Breakers({"sharepoint"})
    for _ in range(OPEN_AFTER):
        breakers.failed("sharepoint")

    async def ask() -> str:
        with dependency("sharepoint"):
            raise HttpStatusError("no such site", status=404)

    async def refused() -> str:
        try:
            return await ask()
        except HttpStatusError as error:
            raise PermanentError("there is no site of that name") from error

    result, _ = await attempts(refused, breakers)
    assert isinstance(result, policy.Failed)
    assert result.kind is Kind.PERMANENT
    assert breakers.open_names == []


def test_probes_of_an_open_breaker_come_further_apart() -> None:
    now = 0.0
    breakers = Breakers({"vision"}, clock=lambda: now)
    for _ in range(OPEN_AFTER):
        breakers.failed("vision")
    waits = []
    for _ in range(6):
        waits.append(breakers.probe_in)
        now += breakers.probe_in
        breakers.failed("vision")
    assert waits == [2, 4, 8, 10, 10, 10]


def test_the_innermost_dependency_names_the_failure() -> None:
    with pytest.raises(TransientError) as caught, dependency("outer"), dependency("inner"):
        raise TransientError("x")
    assert dependency_of(caught.value) == "inner"


async def test_a_library_that_cancels_itself_is_a_failed_attempt_not_a_lost_entry() -> None:
    async def call() -> str:
        raise asyncio.CancelledError

    result, _ = await attempts(call)
    assert isinstance(result, policy.Failed)
    assert result.kind is Kind.TRANSIENT


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (ValueError("not a reference into the photo store"), "not a reference into the photo store"),
        (RuntimeError(), "failed without a reason (RuntimeError)"),
        (TimeoutError(), "no answer in time"),
        (KeyError("id"), "missing key 'id'"),
    ],
)
def test_a_failure_is_told_in_its_own_words_and_not_by_the_name_of_a_class(
    error: Exception, sentence: str
) -> None:
    assert sentence_of(error) == sentence


async def test_a_target_that_fails_postpones_its_own_entries_and_reading_goes_on() -> None:
    breakers = Breakers(("sharepoint",))

    async def store(library: str, error: Exception | None) -> str:
        with dependency("sharepoint", library):
            if error:
                raise error
            return "stored"

    def sick() -> Awaitable[str]:
        return store("Fotos", HttpStatusError("storage is full", status=507))

    for _ in range(2):
        await attempts(sick, breakers)
    result, waits = await attempts(sick, breakers)
    assert isinstance(result, policy.Failed)
    assert result.kind is Kind.POSTPONE
    assert waits == []
    assert breakers.open_names == ["sharepoint/Fotos"]
    assert not breakers.reading_stopped
    other, _ = await attempts(lambda: store("Pläne", None), breakers)
    assert isinstance(other, policy.Succeeded)
    assert breakers.is_open("sharepoint/Fotos")
    await attempts(lambda: store("Fotos", None), breakers)
    assert breakers.open_names == []


async def test_a_lone_entry_of_a_silent_target_is_postponed() -> None:
    breakers = Breakers({"sharepoint"})

    async def store() -> str:
        with dependency("sharepoint", "Fotos"):
            raise HttpStatusError("broken", status=500)

    result, waits = await attempts(store, breakers)
    assert isinstance(result, policy.Failed)
    assert (result.kind, len(waits)) == (Kind.POSTPONE, 2)
    assert breakers.open_names == ["sharepoint/Fotos"]


def test_where_targets_may_be_down_for_days_each_look_takes_twice_the_time() -> None:
    now = 0.0
    breakers = Breakers((), longest_spread=7200.0, clock=lambda: now)
    for _ in range(OPEN_AFTER):
        breakers.failed("webhook/wh_1", "the endpoint answered 500")
    waits = [breakers.come_back("webhook/wh_1") for _ in range(100)]
    assert 30.0 <= min(waits) <= max(waits) <= 60.0 + LONGEST_PROBE
    now = 1000.0
    assert all(500.0 <= breakers.come_back("webhook/wh_1") <= 1000.0 + LONGEST_PROBE for _ in range(100))
    now = 100_000.0
    assert all(3600.0 <= breakers.come_back("webhook/wh_1") <= 7200.0 + LONGEST_PROBE for _ in range(100))
    # an entry that meets it keeps it known until the longest wait is over
    breakers.hold("webhook/wh_1")
    now += 7200.0
    assert breakers.open_names == ["webhook/wh_1"]
