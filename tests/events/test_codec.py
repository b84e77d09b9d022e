"""What is on the wire, and what cannot be an event."""

from __future__ import annotations

import msgspec
import pytest

from events import codec, identities
from events.types import Hints, PhotoSubmitted, SchemaExtracted, Step
from tests.events.samples import sample

STREAM = "photo.submitted"


def fields(**named: str | bytes) -> list[bytes]:
    flat: list[bytes] = []
    for name, value in named.items():
        flat += (name.encode(), value if isinstance(value, bytes) else value.encode())
    return flat


def test_what_is_encoded_is_decoded_again() -> None:
    event = PhotoSubmitted(
        source_url="store:originals/x",
        photo_id=identities.photo_id("p-1"),
        session_id=identities.session_id("s-1"),
        hints=Hints(project="Seewen", taken_at="2026-05-12"),
    )
    flat = codec.encode(
        event,
        event_id="e-1",
        source="test",
        photo_id="p-1",
        session_id="s-1",
        traceparent="00-x",
        extras=(b"k", b"v"),
    )
    wire = [part if isinstance(part, bytes) else part.encode() for part in flat]
    envelope = codec.decode(STREAM, "1-1", wire)
    assert envelope.event == event
    assert (envelope.event_id, envelope.photo_id, envelope.session_id) == ("e-1", "p-1", "s-1")
    assert envelope.traceparent == "00-x"
    assert envelope.extras == (b"k", b"v")


def test_data_alone_is_an_event() -> None:
    envelope = codec.decode(STREAM, "7-1", fields(data='{"source_url": "file:/a.jpg"}'))
    assert envelope.event_id == "7-1"
    assert envelope.photo_id == identities.derived_photo_id(None, "file:/a.jpg")
    assert isinstance(envelope.event, PhotoSubmitted)
    assert envelope.event.photo_id == envelope.photo_id


def test_a_newer_publishers_field_is_no_error() -> None:
    codec.decode(STREAM, "1-1", fields(data='{"source_url": "file:/a", "colour": {"deep": [1, 2]}}'))


def test_ids_come_from_the_attributes_where_the_data_has_none() -> None:
    envelope = codec.decode(
        STREAM, "1-1", fields(data='{"source_url": "file:/a"}', subject="photo-9", sessionid="s-9")
    )
    assert isinstance(envelope.event, PhotoSubmitted)
    assert (envelope.event.photo_id, envelope.event.session_id) == ("photo-9", "s-9")


@pytest.mark.parametrize(
    ("flat", "says"),
    [
        (fields(x="1"), "no field `data`"),
        (fields(data="{"), "truncated|malformed"),
        (fields(data=b"\xff\xfe"), "no photo.submitted event"),
        (fields(data="{}"), "source_url"),
        (fields(data='{"source_url": 7}'), "source_url"),
        (fields(data="[]"), "array"),
        (fields(data='{"source_url": "x"}', type="photo.fetched"), "does not belong"),
        (fields(data='{"source_url": "x"}', type=b"\xff"), "not UTF-8"),
        (fields(data='{"source_url": "x", "session_id": "a b"}'), "session_id"),
        (fields(data='{"source_url": "x", "session_id": "lru"}'), "reserved"),
        (fields(data='{"source_url": "x", "session_id": "{1}:x"}'), "session_id"),
        (fields(data='{"source_url": "x"}', subject="a\nb"), "photo_id"),
        ([b"data", b"{}", b"data", b'{"source_url": "x"}'], "twice"),
        ([part for n in range(100) for part in (b"f%d" % n, b"x")], "100 fields"),
        (fields(data=b'{"source_url": "' + b"x" * codec.MAX_ENTRY_BYTES + b'"}'), "bytes"),
        (
            fields(data=b'{"source_url": "x", "hints": ' + b'{"a":' * 20_000 + b"1" + b"}" * 20_000 + b"}"),
            "deep|recursion|no photo",
        ),
    ],
)
def test_what_is_no_event_says_why(flat: list[bytes], says: str) -> None:
    with pytest.raises(codec.UndecodableError, match=says):
        codec.decode(STREAM, "1-1", flat)


def test_an_undecodable_entry_still_names_its_session() -> None:
    with pytest.raises(codec.UndecodableError) as caught:
        codec.decode(STREAM, "1-1", fields(data="{", sessionid="s-1"))
    assert caught.value.session_id == "s-1"


def test_a_step_is_added_without_touching_those_before() -> None:
    one = codec.with_step(b"", Step(agent="a", started=1.0, seconds=2.0))
    two = codec.with_step(one, Step(agent="b", started=3.0, seconds=4.0, attempts=2))
    assert [step.agent for step in codec.read_steps(two)] == ["a", "b"]
    assert codec.read_steps(b"nonsense") == ()


def test_event_ids_sort_by_time_and_do_not_repeat() -> None:
    made = [identities.new_event_id() for _ in range(1000)]
    assert len(set(made)) == 1000
    assert made[0][:8] <= made[-1][:8]


def test_events_are_cumulative() -> None:
    assert set(msgspec.structs.asdict(PhotoSubmitted(source_url="x"))) - {"target", "expected"} <= {
        field.name for field in msgspec.structs.fields(SchemaExtracted)
    }


@pytest.mark.parametrize(
    ("length", "passed_on"), [(512, True), (5000, True), (16_447, True), (16_448, False)]
)
def test_512_characters_of_tracestate_are_the_least_to_pass_on(length: int, passed_on: bool) -> None:  # noqa: FBT001 - a parameter
    event = PhotoSubmitted(source_url="x")
    wire = codec.encode(event, event_id="e", source="s", traceparent="00", tracestate="x" * length)
    assert ("tracestate" in wire) is passed_on


def test_only_what_cloudevents_allows_as_an_attribute_travels_along() -> None:
    entry = fields(data='{"source_url": "x"}', legal="é", camel0="1", dataschema="urn:of-the-submission")
    for illegal in (b"Upper", b"under_score", b"da-sh", b"", b"\xff", "é".encode(), b"a b"):
        entry += (illegal, b"1")
    assert codec.decode(STREAM, "1-1", entry).extras == (b"legal", "é".encode(), b"camel0", b"1")


def test_the_place_of_the_photo_is_no_claim_check() -> None:
    wire = codec.encode(sample("photo.fetched"), event_id="e", source="s")
    assert wire[wire.index("erniphotoref") + 1] == wire[wire.index("dataref") + 1] == "store:originals/1"


@pytest.mark.parametrize(
    ("attribute", "says"),
    [
        ({"specversion": "0.3"}, "specversion '0.3' is not supported: write a CloudEvents 1.0 event"),
        ({"specversion": "2.0"}, "specversion '2.0'"),
        ({"specversion": ""}, "specversion ''"),
        ({"time": "yesterday"}, "time 'yesterday' is no RFC 3339 timestamp: write 2026-05-12T10:30:00Z"),
        ({"time": "2026-05-12"}, "time '2026-05-12'"),
        ({"time": "2026-05-12T10:30:00"}, "no RFC 3339"),
        ({"time": "2026-02-31T10:30:00Z"}, "no RFC 3339"),
        ({"time": "2026-05-12T24:00:00Z"}, "no RFC 3339"),
    ],
)
def test_a_submission_that_is_no_cloudevent_of_version_1_is_refused(
    attribute: dict[str, str], says: str
) -> None:
    with pytest.raises(codec.UndecodableError, match=says):
        codec.decode(STREAM, "1-1", fields(data='{"source_url": "x"}', **attribute))


@pytest.mark.parametrize(
    "when", ["2026-05-12T10:30:00Z", "1985-04-12t23:20:50.52z", "1990-12-31T15:59:60-08:00"]
)
def test_every_time_of_rfc_3339_is_taken(when: str) -> None:
    envelope = codec.decode(STREAM, "1-1", fields(data='{"source_url": "x"}', time=when, specversion="1.0"))
    assert envelope.photo_id


@pytest.mark.parametrize("field", ["data", "event"])
def test_structured_mode_in_a_field_is_named(field: str) -> None:
    event = '{"specversion": "1.0", "id": "1", "source": "s", "type": "t", "data": {"source_url": "x"}}'
    with pytest.raises(
        codec.UndecodableError, match=rf"`{field}` holds a whole CloudEvent .structured mode.*only"
    ):
        codec.decode(STREAM, "1-1", fields(**{field: event}))
