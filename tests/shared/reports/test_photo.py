"""A photo's report goes into the store and comes back, and a session finds its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import pytest

from events.identities import PhotoId, SessionId
from shared.photo_store import BlobMissingError
from shared.reports.photo_report import photos_of_session, read_photo_report, trace_id_of, write_photo_report
from tests.shared.reports.sample import photo_report

if TYPE_CHECKING:
    from shared.photo_store import BlobStore


async def test_a_report_comes_back_as_it_was_written(store: BlobStore) -> None:
    report = photo_report(1)
    reference = await write_photo_report(store, report)
    assert reference == f"store:reports/{report.session_id}/photos/{report.photo_id}.json"
    assert await read_photo_report(store, reference) == report


async def test_a_later_report_of_the_same_photo_takes_its_place(store: BlobStore) -> None:
    report = photo_report(1)
    await write_photo_report(store, report)
    later = msgspec.structs.replace(report, verdict="needs_person")
    reference = await write_photo_report(store, later)
    assert await read_photo_report(store, reference) == later
    assert await photos_of_session(store, report.session_id) == [later]


async def test_a_session_lists_its_own_photos_and_no_others(store: BlobStore) -> None:
    mine, other, none = SessionId("seewen"), SessionId("seewen-2"), None
    for seed, session in enumerate((mine, mine, other, none)):
        await write_photo_report(store, photo_report(seed, session))
    assert [len(await photos_of_session(store, session)) for session in (mine, other, none)] == [2, 1, 1]


async def test_photos_come_in_the_order_of_their_names(store: BlobStore) -> None:
    for seed, name in enumerate(("c.jpg", "a.jpg", "b.jpg")):
        await write_photo_report(store, msgspec.structs.replace(photo_report(seed), file_name=name))
    found = await photos_of_session(store, photo_report(0).session_id)
    assert [report.file_name for report in found] == ["a.jpg", "b.jpg", "c.jpg"]


async def test_a_report_that_is_not_there_is_named(store: BlobStore) -> None:
    with pytest.raises(BlobMissingError, match=r"reports/-/photos/p-1\.json"):
        await read_photo_report(store, "store:reports/-/photos/p-1.json")


async def test_a_newer_report_with_unknown_fields_can_be_read(store: BlobStore) -> None:
    report = photo_report(1)
    body = msgspec.json.decode(msgspec.json.encode(report))
    await store.replace(
        f"reports/{report.session_id}/photos/{report.photo_id}.json",
        msgspec.json.encode(body | {"invented_later": 1}),
    )
    assert await photos_of_session(store, report.session_id) == [report]


def test_the_verdicts_of_the_event_are_those_of_the_columns_that_were_sent() -> None:
    report = photo_report(19)
    sent = {field.column for field in report.fields if field.sent is not None}
    assert report.verdicts.keys() == sent < {field.column for field in report.fields}


@pytest.mark.parametrize(
    ("traceparent", "trace_id"),
    [
        ("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-03", "0af7651916cd43dd8448eb211c80319c"),
        ("00-00000000000000000000000000000000-b7ad6b7169203331-01", ""),
        ("00-<img src=x onerror=alert(1)>-b7ad6b7169203331-01", ""),
        ("", ""),
    ],
)
def test_the_trace_id_is_taken_from_the_traceparent(traceparent: str, trace_id: str) -> None:
    assert trace_id_of(traceparent) == trace_id


async def test_a_photo_without_a_session_lies_where_no_session_can(store: BlobStore) -> None:
    report = msgspec.structs.replace(photo_report(1, None), photo_id=PhotoId("p-1"))
    assert await write_photo_report(store, report) == "store:reports/-/photos/p-1.json"
