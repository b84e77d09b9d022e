"""Each error answer of a service, byte for byte as it came, and what becomes of the photo."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import TYPE_CHECKING, NamedTuple

import pytest

from shared.retry.breaker import Breakers
from shared.retry.classify import Kind, classify
from shared.retry.errors import (
    HttpStatusError,
    PermanentError,
    PostponeError,
    SetupError,
    TransientError,
    dependency_of,
    refuser_of,
    status_of,
)
from shared.retry.policy import Failed
from shared.vision.contract import Answer, PhotoContext
from shared.vision.refusals import SchemaRefusedError
from tests.shared.columns.columns import PHASE, library
from tests.shared.retry.test_policy import attempts
from tests.shared.vision.conftest import KEY

if TYPE_CHECKING:
    from shared.vision.openai import OpenAIAnalyzer
    from tests.shared.vision.conftest import Asking
    from tests.shared.vision.recorded import Recorded


async def _ask(analyzer: OpenAIAnalyzer) -> Answer:
    return await analyzer.describe(b"\xff\xd8", library(PHASE), PhotoContext())


@pytest.mark.parametrize(
    ("error", "kind", "status"),
    [
        ({"message": "Provider returned error", "code": 429}, Kind.TRANSIENT, 429),
        ({"message": "overloaded", "code": "503"}, Kind.TRANSIENT, 503),
        ({"message": "slow down", "code": "rate_limit_exceeded"}, Kind.TRANSIENT, 429),
        ({"message": "no such model", "code": 404}, Kind.PERMANENT, 404),
        ("oops", Kind.TRANSIENT, 502),
    ],
)
async def test_an_error_inside_a_200_is_that_error(
    asking: Asking, service: Recorded, error: object, kind: Kind, status: int
) -> None:
    service.answer(200, json.dumps({"choices": None, "usage": None, "error": error}))
    with pytest.raises(HttpStatusError) as raised:
        await _ask(await asking())
    assert raised.value.status == status
    assert classify(raised.value) is kind
    assert dependency_of(raised.value) == "vision"


class Row(NamedTuple):
    """An error answer, and what the machinery has to know of it."""

    status: int
    headers: dict[str, str]
    body: str
    error: type[Exception]
    kind: Kind
    says: str
    wait: float | None = None


def _error(**parts: object) -> str:
    """An error body of OpenAI's and Azure's form."""
    return json.dumps({"error": {"message": "", "type": None, "param": None, "code": None} | parts})


FINAL, AGAIN = Kind.PERMANENT, Kind.TRANSIENT
ERRORS = [
    Row(
        400,
        {},
        _error(message="Invalid schema", type="invalid_request_error", param="response_format"),
        SchemaRefusedError,
        FINAL,
        r"invalid_request_error \(Invalid schema\); .* VISION_SCHEMA_FORM",
    ),
    Row(
        422,
        {},
        '{"detail": [{"type": "extra_forbidden", "loc": ["body", "temperature"], "msg": "Not permitted"}]}',
        SetupError,
        FINAL,
        r"\(temperature: Not permitted\); set VISION_TEMPERATURE=null",
    ),
    Row(
        400,
        {},
        _error(message="max_tokens is too large: 5000. At most 4096 are supported.", param="max_tokens"),
        SetupError,
        FINAL,
        "lower VISION_MAX_TOKENS",
    ),
    Row(
        400,
        {},
        _error(message="Use another", type="invalid_request_error", param="max_tokens", code="unsupported"),
        SetupError,
        FINAL,
        "VISION_TOKENS_FIELD",
    ),
    Row(
        400,
        {},
        _error(message="The response was filtered", param="prompt", code="content_filter", status=400),
        PermanentError,
        FINAL,
        "content filter does not take this photo",
    ),
    Row(
        401,
        {},
        _error(message=f"Incorrect API key provided: {KEY}.", code="invalid_api_key"),
        TransientError,
        AGAIN,
        "401 invalid_api_key; check VISION_API_KEY",
    ),
    Row(401, {"x-should-retry": "false"}, "", TransientError, AGAIN, "401; check VISION_API_KEY"),
    Row(403, {}, '{"error": "forbidden"}', HttpStatusError, FINAL, "may not use this model"),
    Row(
        404,
        {},
        '{"error": {"message": "model \'x\' not found", "type": "not_found_error"}}',
        HttpStatusError,
        FINAL,
        r"not_found_error \(model 'x' not found\); check VISION_URL and VISION_MODEL",
    ),
    Row(
        400,
        {},
        _error(message="This model's maximum context length is 4096 tokens.", code="context_length_exceeded"),
        SetupError,
        FINAL,
        "lower VISION_PREVIEW_SIDE",
    ),
    Row(
        400,
        {},
        _error(message="Unable to process input image.", param="messages"),
        HttpStatusError,
        FINAL,
        "process input image",
    ),
    Row(400, {}, "", SetupError, FINAL, "answered 400"),
    Row(402, {}, _error(message="Insufficient Balance"), PostponeError, Kind.POSTPONE, "quota is used up"),
    Row(307, {"Location": "http://127.0.0.1:1/"}, "", SetupError, FINAL, "answered 307; check VISION_URL"),
    Row(408, {}, "", TransientError, AGAIN, "answered 408"),
    Row(409, {}, "", TransientError, AGAIN, "answered 409"),
    Row(413, {}, "<html>too large</html>", HttpStatusError, FINAL, "VISION_PREVIEW_SIDE"),
    Row(
        429,
        {"retry-after-ms": "1500", "Retry-After": "30"},
        _error(message="Rate limit reached", type="tokens", code="rate_limit_exceeded"),
        HttpStatusError,
        AGAIN,
        r"429 rate_limit_exceeded \(Rate limit reached\); it is asked too often",
        1.5,
    ),
    Row(429, {"Retry-After": "7"}, "", HttpStatusError, AGAIN, "asked too often", 7),
    Row(429, {"Retry-After": "600"}, "", HttpStatusError, AGAIN, "asked too often", 600),
    Row(
        429,
        {
            "x-ratelimit-remaining-requests": "0",
            "x-ratelimit-reset-requests": "6m0s",
            "x-ratelimit-remaining-tokens": "149984",
            "x-ratelimit-reset-tokens": "1h",
        },
        "",
        HttpStatusError,
        AGAIN,
        "asked too often",
        360,
    ),
    Row(
        429,
        {"x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": "20ms"},
        "",
        HttpStatusError,
        AGAIN,
        "asked too often",
        0.02,
    ),
    Row(429, {"Retry-After": "bald"}, "", HttpStatusError, AGAIN, "asked too often"),
    Row(429, {"x-should-retry": "false"}, "", PermanentError, FINAL, "not to be tried again"),
    Row(
        429,
        {"Retry-After": "1"},
        _error(message="You exceeded your quota", type="insufficient_quota", code="insufficient_quota"),
        PostponeError,
        Kind.POSTPONE,
        "quota is used up",
    ),
    Row(400, {"x-should-retry": "true"}, "", TransientError, AGAIN, "answered 400"),
    Row(500, {}, '{"object": "error", "message": "oops", "code": 500}', HttpStatusError, AGAIN, "oops"),
    Row(502, {}, "<html>Bad Gateway</html>", HttpStatusError, AGAIN, "answered 502"),
    Row(503, {"Retry-After": "2"}, '{"error": "loading"}', HttpStatusError, AGAIN, "loading", 2),
    Row(503, {"x-should-retry": "false"}, "", PermanentError, FINAL, "not to be tried again"),
    Row(529, {}, '{"error": {"message": "overloaded"}}', HttpStatusError, AGAIN, "overloaded"),
]


@pytest.mark.parametrize("row", ERRORS, ids=lambda row: f"{row.status}-{row.says[:20]}")
async def test_each_error_answer_is_what_the_machinery_needs_to_know(
    asking: Asking, service: Recorded, row: Row
) -> None:
    service.answer(row.status, row.body, row.headers)
    with pytest.raises(row.error, match=row.says) as raised:
        await _ask(await asking())
    assert type(raised.value) is row.error
    assert classify(raised.value) is row.kind
    assert getattr(raised.value, "retry_after", None) == row.wait
    schema = row.error is SchemaRefusedError
    assert dependency_of(raised.value) == ("vision/Referenzfotos" if schema else "vision")
    assert KEY not in str(raised.value)
    assert len(service.requests) == 1


@pytest.mark.parametrize(
    ("status", "refuser"), [(403, "vision"), (404, "vision"), (422, "vision"), (413, None), (503, None)]
)
async def test_a_refusal_that_forbids_another_attempt_keeps_its_status(
    asking: Asking, service: Recorded, status: int, refuser: str | None
) -> None:
    service.answer(status, "", {"x-should-retry": "false"})
    with pytest.raises(PermanentError) as raised:
        await _ask(await asking())
    assert status_of(raised.value) == status
    assert refuser_of(raised.value) == refuser


BY_SETTING = {
    "message": "Extra inputs are not permitted",
    "type": "invalid_request_error",
    "param": "temperature",
}
BY_SCHEMA = {"message": "Invalid schema", "type": "invalid_request_error", "param": "response_format"}
BY_PHOTO = {"message": "Could not process image", "type": "invalid_request_error", "param": None}


@pytest.mark.parametrize(
    ("refused", "dead", "opened"),
    [(BY_SETTING, 4, "vision"), (BY_SCHEMA, 4, "vision/Referenzfotos"), (BY_PHOTO, 8, None)],
)
async def test_photos_wait_when_a_setting_is_refused_and_not_when_they_are(
    asking: Asking, service: Recorded, refused: dict[str, str], dead: int, opened: str | None
) -> None:
    analyzer, breakers, kinds = await asking(), Breakers({"vision"}), []
    for _ in range(8):
        service.answer(400, json.dumps({"error": refused}))
        result, _ = await attempts(lambda: _described(analyzer), breakers)
        assert isinstance(result, Failed)
        kinds.append(result.kind)
        if opened and len(kinds) == 6:
            break
    service.forget()
    assert kinds.count(Kind.PERMANENT) == dead
    assert kinds[dead:] == [Kind.POSTPONE] * (len(kinds) - dead)
    assert breakers.open_names == ([opened] if opened else [])
    assert breakers.reading_stopped == (opened == "vision")


async def _described(analyzer: OpenAIAnalyzer) -> str:
    return (await _ask(analyzer)).description


async def test_a_wait_until_a_date_is_seconds_from_now(asking: Asking, service: Recorded) -> None:
    date = format_datetime(datetime.now(UTC) + timedelta(seconds=90), usegmt=True)
    service.answer(429, "", {"Retry-After": date})
    with pytest.raises(HttpStatusError) as raised:
        await _ask(await asking())
    assert raised.value.retry_after == pytest.approx(90, abs=5)
