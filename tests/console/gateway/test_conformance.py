"""The cases of CloudEvents' conformance suite for the JSON format, over HTTP, and the HTTP binding's own.

The cases are facts from https://github.com/cloudevents/conformance (branch format-tests, format/json): 10
valid events, 25 that are none, 5 valid batches and 3 that are none. A valid one is a CloudEvent for us,
whatever it is about: the answer is about photo.submitted then. What is no CloudEvent gets an answer that says
so.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec
import pytest

from console.gateway.cloud_events import (
    CloudEvent,
    NotACloudEventError,
    decoded_header,
    read_batch,
    read_binary,
    read_structured,
)
from tests.console.gateway.conftest import SOURCE, Client

if TYPE_CHECKING:
    from redis.asyncio import Redis

INTAKE: Final = "erni:photo.submitted"
MINIMAL: Final[dict[str, Any]] = {
    "specversion": "1.0",
    "id": "minimal",
    "type": "io.cloudevents.test",
    "source": "https://cloudevents.io",
}
NULLS: Final = dict.fromkeys(("datacontenttype", "dataschema", "subject", "time"))
TIMED: Final = {**MINIMAL, "id": "minimalWithTime"}
ALL_CORE: Final = {
    **MINIMAL,
    "id": "allCore",
    "datacontenttype": "text/plain",
    "dataschema": "https://cloudevents.io/dataschema",
    "subject": "tests",
    "time": "2018-04-05T17:31:00Z",
}
ALL_EXTENSIONS: Final = {
    **MINIMAL,
    "id": "allExtensionTypes",
    "extinteger": 10,
    "extboolean": True,
    "extstring": "text",
    "exturi": "https://cloudevents.io",
    "exturiref": "//authority/path",
    "exttimestamp": "2023-03-31T15:12:00Z",
    "extbinary": "TWE=",
}
VALID: Final[dict[str, dict[str, Any]]] = {
    "validMinimal": MINIMAL,
    "validMinimalWithNullForOptional": {**MINIMAL, **NULLS},
    "validAllCoreAttributes": ALL_CORE,
    "validMinimalWithTimeUtc": {**TIMED, "time": "2018-04-05T17:31:00Z"},
    "validMinimalWithTimeToNanosecondsUtc": {**TIMED, "time": "2018-04-05T17:31:00.000000000Z"},
    "validMinimalWithTimeUsingPositiveOffset": {**TIMED, "time": "2018-04-05T18:31:00+01:00"},
    "validMinimalWithTimeUsingNegativeOffset": {**TIMED, "time": "2018-04-05T16:31:00-01:00"},
    "validRelativeSource": {**MINIMAL, "id": "minimalWithRelativeSource", "source": "#fragment"},
    "validSimpleTextData": {
        **MINIMAL,
        "id": "simpleTextData",
        "datacontenttype": "text/plain",
        "data": "Simple text",
    },
    "validAllExtensionTypes": ALL_EXTENSIONS,
}


def _but(without: str = "", **more: Any) -> dict[str, Any]:
    return {name: value for name, value in {**MINIMAL, "id": "invalid", **more}.items() if name != without}


INVALID: Final[dict[str, dict[str, Any]]] = {
    "invalidNoSpecVersion": _but("specversion"),
    "invalidNoId": _but("id"),
    "invalidNoType": _but("type"),
    "invalidNoSource": _but("source"),
    "invalidTimeGarbage": _but(time="lunchtime"),
    "invalidTimeToMinute": _but(time="2018-04-05T18:31Z"),
    "invalidTimeOffsetX": _but(time="2018-04-05T18:31:00X"),
    "invalidTimeOffsetOutOfRange": _but(time="2018-04-05T18:31:00+25:00"),
    "invalidTimeOffsetNonInteger": _but(time="2018-04-05T18:31:00+xx:00"),
    "invalidTimeOffsetHourOnly": _but(time="2018-04-05T18:31:00+05"),
    "invalidEmptyId": _but(id=""),
    "invalidEmptyType": _but(type=""),
    "invalidEmptySource": _but(source=""),
    "invalidEmptySpecVersion": _but(specversion=""),
    "invalidUnknownSpecVersion": _but(specversion="0.9"),
    "invalidNonRfc2046DataContentType": _but(datacontenttype="xyz"),
    "invalidEmptyDataContentType": _but(datacontenttype=""),
    "invalidEmptyDataSchema": _but(dataschema=""),
    "invalidEmptySubject": _but(subject=""),
    "invalidNumericId": _but(id=25),
    "invalidObjectId": _but(id={"xyz": "abc"}),
    "invalidCapitalizedExtension": _but(MyExtension="bad"),
    "invalidPunctuatedExtension": {**_but(), "my.extension": "bad"},
    "invalidNonIntegerExtensionValue": {**_but(), "my.extension": 1.5},
    "invalidBothDataAndDataBase64": _but(data="text", data_base64="eyAieHl6IjogMTIzIH0="),
}
VALID_BATCHES: Final[dict[str, list[Any]]] = {
    "validBatchEmpty": [],
    "validBatchMinimal": [MINIMAL],
    "validBatchMinimal2": [MINIMAL, MINIMAL],
    "validBatchMinimalAndAllCore": [MINIMAL, ALL_CORE],
    "validBatchMinimalAndAllExtensionTypes": [MINIMAL, ALL_EXTENSIONS],
}
INVALID_BATCHES: Final[dict[str, tuple[list[Any], str]]] = {
    "invalidBatchMixedSpecVersions": (
        [{**MINIMAL, "id": "minimal1"}, {**MINIMAL, "id": "minimal2", "specversion": "0.9"}],
        "/1/specversion",
    ),
    "invalidBatchContainingInvalidCloudEvent": ([_but("id")], "/0/id"),
    "invalidBatchContainingNonObject": (["not an object", {**MINIMAL, "id": "minimal1"}], "/0"),
}


def test_all_43_cases_are_here() -> None:
    assert len(VALID) + len(INVALID) + len(VALID_BATCHES) + len(INVALID_BATCHES) == 43


def _as_photo(event: dict[str, Any]) -> dict[str, Any]:
    """The same event, about a photo and of the client's own source."""
    photo = {"source_url": "https://photos.example.org/1.jpg"}
    kind = {} if event.get("datacontenttype") is None else {"datacontenttype": "application/json"}
    return {**event, "type": "photo.submitted", "source": SOURCE, "data": photo, **kind}


@pytest.mark.parametrize("name", VALID)
async def test_a_valid_event_is_one_and_is_published_if_it_is_about_a_photo(
    client: Client, redis: Redis, name: str
) -> None:
    event = VALID[name]
    read = read_structured(msgspec.json.encode(event))
    texts = {"extinteger": "10", "extboolean": "true"}
    assert read.attributes == {
        **{at: texts.get(at, value) for at, value in event.items() if value is not None and at != "data"},
    }
    assert read.data == (b'"Simple text"' if "data" in event else None)
    answer = await client.publish({**event, "source": SOURCE})
    assert (answer.status, answer.problem) == (400, "event-refused")
    assert "send photo.submitted" in answer.detail
    answer = await client.publish(_as_photo(event))
    assert answer.status == 202, answer.body
    assert await redis.xlen(INTAKE) == 1


@pytest.mark.parametrize("name", INVALID)
async def test_what_is_no_event_is_refused_as_none(client: Client, redis: Redis, name: str) -> None:
    event = INVALID[name]
    with pytest.raises(NotACloudEventError):
        read_structured(msgspec.json.encode(event))
    for sent in (event, {**event, **({"type": "photo.submitted"} if event.get("type") else {})}):
        answer = await client.publish(sent)
        assert (answer.status, answer.problem) == (400, "not-a-cloudevent"), answer.body
        assert answer.errors[0]["pointer"].startswith("/")
    assert await redis.xlen(INTAKE) == 0


@pytest.mark.parametrize("name", VALID_BATCHES)
async def test_a_valid_batch_is_one(client: Client, redis: Redis, name: str) -> None:
    batch = VALID_BATCHES[name]
    assert all(isinstance(one, CloudEvent) for one in read_batch(msgspec.json.encode(batch)))
    answer = await client.publish([_as_photo(event) for event in batch])
    assert answer.status == 202, answer.body
    assert [one["event_id"] for one in answer.document["events"]] == [event["id"] for event in batch]
    assert await redis.xlen(INTAKE) == len({event["id"] for event in batch})


@pytest.mark.parametrize("name", INVALID_BATCHES)
async def test_a_batch_that_is_none_says_where(client: Client, redis: Redis, name: str) -> None:
    batch, pointer = INVALID_BATCHES[name]
    answer = await client.publish([_as_photo(one) if isinstance(one, dict) else one for one in batch])
    assert (answer.status, answer.problem) == (400, "batch-refused")
    assert [one["pointer"] for one in answer.errors] == [pointer]
    assert answer.errors[0]["type"] == "/v1/problems/not-a-cloudevent"
    assert await redis.xlen(INTAKE) == 0


@pytest.mark.parametrize("content_type", ["application/json", "application/json; charset=utf-8"])
def test_the_binary_example_of_the_suite_is_read_as_it_says(content_type: str) -> None:
    headers = [
        (b"Host", b"example.com"),
        (b"ce-specversion", b"1.0"),
        (b"CE-Type", b"com.example.someevent"),
        (b"ce-time", b"2018-04-05T03:56:24Z"),
        (b"ce-id", b"1234-1234-1234"),
        (b"ce-source", b"/mycontext/subcontext"),
        (b"Content-Type", content_type.encode()),
    ]
    body = b'{\n    "message": "Hello World!"\n}'
    read = read_binary(headers, body)
    assert read.attributes == {
        "id": "1234-1234-1234",
        "specversion": "1.0",
        "type": "com.example.someevent",
        "source": "/mycontext/subcontext",
        "time": "2018-04-05T03:56:24Z",
        "datacontenttype": content_type,
    }
    assert read.data == body
    assert read.has_json


@pytest.mark.parametrize("charset", ["", "; charset=utf-8", "; charset=UTF-8"])
async def test_the_structured_example_of_the_suite_is_one(client: Client, charset: str) -> None:
    answer = await client.ask(
        "POST",
        "/v1/events",
        data=msgspec.json.encode(_as_photo({**MINIMAL, "datacontenttype": "application/json"})),
        headers={"Content-Type": f"application/cloudevents+json{charset}"},
    )
    assert answer.status == 202


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (b"Euro%20%E2%82%AC%20%F0%9F%98%80", "Euro € 😀"),
        (b"%e2%82%ac", "€"),
        (b"%41%7E", "A~"),
        (b"%2525", "%25"),
        (b"a b", "a b"),
        (b'"a \\"quoted\\" b"', 'a "quoted" b'),
        (b'"back\\\\slash"', "back\\slash"),
        (b'x "y z"', "x y z"),
        (b'"%22"', '"'),
        (b"back\\slash", "back\\slash"),
        (b"", ""),
    ],
)
def test_header_values_are_decoded_by_the_letter(value: bytes, text: str) -> None:
    assert decoded_header(value) == text


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        (b"%C0%A0", "not as UTF-8"),
        (b"%ED%A0%80", "not as UTF-8"),
        (b"%FF", "not as UTF-8"),
        (b"100%", "begins no percent-encoding"),
        (b"%zz", "begins no percent-encoding"),
        ("ü".encode(), "outside ASCII"),
        (b'"open', "without its end"),
    ],
)
def test_header_values_that_are_wrong_are_refused(value: bytes, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        decoded_header(value)


@pytest.mark.parametrize("wrong", ["a%00b", "a%7Fb", "a%C2%85b", "%EF%BF%BE", "%EF%B7%90", "%F0%9F%BF%BF"])
async def test_characters_that_no_attribute_may_have_are_refused(client: Client, wrong: str) -> None:
    headers = {
        **{f"ce-{name}": value for name, value in _as_photo(MINIMAL).items() if name != "data"},
        "ce-comexample": wrong,
        "Content-Type": "application/json",
    }
    answer = await client.ask("POST", "/v1/events", data=b'{"source_url": "store:a"}', headers=headers)
    assert (answer.status, answer.problem) == (400, "not-a-cloudevent")
    assert "which no attribute may have" in answer.detail
