"""`erni session`, `erni photo` and `erni report`: how people ask whether their photos are through."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from events import topology
from events.identities import SessionId, StoreUrl
from events.keys import lane_of
from events.types import PhotoInShort, SessionReported, Step
from shared.delivery import packing
from shared.delivery.photo_record import record_fields
from tests.console.pipeline import KEYS, TRACEPARENT, beats, dies, pairs, went

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from redis import Redis

    from tests.console.conftest import Ran


@pytest.fixture
def photo(tmp_path: Path) -> str:
    path = tmp_path / "a.jpg"
    path.write_bytes(b"a picture")
    return str(path)


def _counts(client: Redis, session: str, **counters: int) -> None:
    client.hset(KEYS.session(session), mapping={name: str(value) for name, value in counters.items()})


def test_sessions_are_listed_last_used_first(erni: Callable[..., Ran], photo: str) -> None:
    for name in ("s1", "s2", "s3"):
        erni("publish", photo, "--session", name)
    document = erni("session", "list", "--limit", "2", "--json").document
    assert document["total"] == 3
    assert [session["session_id"] for session in document["sessions"]] == ["s3", "s2"]
    text = erni("session", "list", "--limit", "2").out
    assert "1 more; --limit shows more of them" in text
    assert text.index("s3") < text.index("s2")


def test_a_session_says_how_many_photos_need_a_person(
    erni: Callable[..., Ran], client: Redis, photo: str
) -> None:
    erni("publish", photo, "--session", "s1")
    assert erni("session", "show", "s1", "--json").document["needs_person"] is None
    for session, needed in (("s1", 2), ("s1", 1), ("s2", 3)):
        reported = SessionReported(
            session_id=SessionId(session),
            completion=1,
            report_ref=StoreUrl("store:reports/s1/report.html"),
            validated=4,
            dead=0,
            needs_person=[PhotoInShort(file_name="a.jpg", reason="Titel: empty")] * needed,
        )
        client.xadd("erni:session.reported", {"data": msgspec.json.encode(reported)})
    assert erni("session", "show", "s1", "--json").document["needs_person"] == 1
    assert (
        "people     1 photo needs a person, by the last report:  erni report s1"
        in erni("session", "show", "s1").out
    )


def test_without_a_session_it_says_how_to_make_one(erni: Callable[..., Ran]) -> None:
    assert erni("session", "list").out.startswith("there is no session yet; `erni publish PATH` makes one\n")


def test_one_session_shows_counters_and_photos(erni: Callable[..., Ran], client: Redis, photo: str) -> None:
    erni("publish", photo, "--session", "s1")
    _counts(client, "s1", received=1, dead=1, schema_extractor=1)
    went(client, "schema_extractor")
    went(client, "photo_fetcher", "dead")
    document = erni("session", "show", "s1", "--json").document
    assert document["session"]["counters"] == {"schema_extractor": 1}
    assert document["photos"] == [{"photo_id": "p-1", "file_name": "a.jpg", "status": "dead"}]
    text = erni("session", "show", "s1").out
    assert "status     open: 0 validated, 1 dead of 1" in text
    assert "why they are dead:  erni dead list --session s1" in text


def test_a_session_that_completed_more_than_once_says_why(
    erni: Callable[..., Ran], client: Redis, photo: str
) -> None:
    erni("publish", photo, "--session", "s1")
    _counts(client, "s1", received=1, validated=1)
    client.hset(KEYS.session("s1"), mapping={"status": "completed", "completion": "1"})
    assert "status     completed: 1 validated, 0 dead" in erni("session", "show", "s1").out
    client.hset(KEYS.session("s1"), "completion", "3")
    said = "status     completed 3 times: 1 validated, 0 dead\n           (replays, or photos that came in"
    assert said in erni("session", "show", "s1").out
    assert "asked for" not in erni("session", "list").out


def test_a_corrupt_session_is_none(erni: Callable[..., Ran], client: Redis, photo: str) -> None:
    erni("publish", photo, "--session", "s1")
    client.hset(KEYS.session("s1"), mapping={"expected": "many", "received": b"\xff\xfe", "created_at": ""})
    assert "there is no session s1" in erni("session", "show", "s1").err
    listed = erni("session", "list", "--json").document
    assert listed["sessions"] == []
    assert listed["statistics"]["errors"] > 0
    assert erni("publish", photo, "--session", "s1").code == 0


def test_the_memory_backend_has_nothing_to_show(
    erni: Callable[..., Ran], client: Redis, photo: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SESSION_BACKEND", "memory")
    assert erni("publish", photo, "--session", "s1").code == 0
    assert not client.exists(KEYS.session("s1"))
    ran = erni("session", "list")
    assert ran.code == 1
    assert "SESSION_BACKEND=memory" in ran.err


def test_closing_tells_the_number_that_counts(erni: Callable[..., Ran], client: Redis, photo: str) -> None:
    erni("publish", photo, "--session", "s1")
    client.hdel(KEYS.session("s1"), "expected")
    nothing = erni("session", "close", "s1")
    assert nothing.code == 1
    assert "say how many with --expected N" in nothing.err
    _counts(client, "s1", received=2)
    told = erni("session", "close", "s1", "--json").document
    assert told == {"session_id": "s1", "expected": 2, "received": 2}
    again = erni("session", "close", "s1", "--expected", "5", "--json")
    assert again.document["expected"] == 5
    assert client.hget(KEYS.session("s1"), "expected") == b"5"


def test_a_session_with_more_photos_than_announced_shows_those_that_came(
    erni: Callable[..., Ran], client: Redis, photo: str
) -> None:
    erni("publish", photo, "--session", "five")
    _counts(client, "five", received=5, validated=4)
    row = erni("session", "list").out.splitlines()[1].split()
    assert (row[0], row[-4:]) == ("five", ["5", "4", "·", "1"])
    assert "open: 4 validated, 0 dead of 5" in erni("session", "show", "five").out
    # what was announced stays what programs read as that
    assert erni("session", "show", "five", "--json").document["session"]["expected"] == 1


@pytest.mark.parametrize(
    ("expected", "said"),
    [
        (1, "when 1 photo has ended, though 5 photos have come in: if all of them count, say --expected 5\n"),
        (5, "when 5 photos have ended\n"),
        (7, "when 7 photos have ended: 5 photos have come in, it waits for 2 more\n"),
    ],
)
def test_closing_with_another_number_than_has_come_in_says_so(
    erni: Callable[..., Ran], client: Redis, photo: str, expected: int, said: str
) -> None:
    erni("publish", photo, "--session", "s1")
    _counts(client, "s1", received=5)
    assert erni("session", "close", "s1", "--expected", str(expected)).out == f"s1 is complete {said}"


@pytest.mark.parametrize("words", [("show",), ("close", "--expected", "1"), ("forget", "--yes")])
def test_a_session_that_is_not_there_is_said(erni: Callable[..., Ran], words: tuple[str, ...]) -> None:
    ran = erni("session", words[0], "nope", *words[1:])
    assert ran.code == 1
    assert "there is no session nope (any more)" in ran.err


def test_forgetting_removes_what_only_this_session_has(
    erni: Callable[..., Ran], client: Redis, tmp_path: Path, photo: str
) -> None:
    (tmp_path / "b.jpg").write_bytes(b"another picture")
    erni("publish", photo, str(tmp_path / "b.jpg"), "--session", "s1")
    erni("publish", photo, "--session", "s2")
    data = [fields[b"data"].decode() for _, fields in _entries(client, "photo.submitted")]
    client.xtrim(KEYS.stream("photo.submitted"), maxlen=0)
    # Both photos of s1 died; the one of s2, the same picture as one of them, is on its way.
    for event in data[:2]:
        dies(
            client,
            "photo_fetcher",
            "schema.extracted",
            fields={"data": event.replace("source_url", "dataref")},
        )
    client.xadd(KEYS.stream("schema.extracted"), {"data": data[2]})
    went(client, "schema_extractor")
    _counts(client, "s1", received=2, dead=2)
    ran = erni("session", "forget", "s1", "--yes", "--json")
    assert ran.document == {
        "session_id": "s1",
        "photos": 1,
        "dead_letters": 2,
        "blobs": 1,
        "public_events": 0,
        "event_ids": 2,
    }
    assert "what is in SharePoint stays" in ran.err
    left = [path.read_bytes() for path in (tmp_path / "store" / "originals").iterdir()]
    assert left == [b"a picture"]
    assert not client.exists(KEYS.session("s1"), KEYS.session_photos("s1"), KEYS.photo("p-1"))
    assert client.xlen(KEYS.dead("photo_fetcher")) == 0
    assert [s["session_id"] for s in erni("session", "list", "--json").document["sessions"]] == ["s2"]


def test_forgetting_removes_notices_that_wait(erni: Callable[..., Ran], client: Redis) -> None:
    """An endpoint that is down keeps them for days, and they name photos."""
    _counts(client, "s1", received=1, dead=1)
    queued, delayed = KEYS.stream("webhook.queued"), KEYS.delayed("webhook_notifier")
    for session in ("s1", "s2"):
        client.xadd(queued, {"sessionid": session, "data": "{}"})
        member = packing.pack(["1-1", ["sessionid", session, "data", "{}"], "0:1:1", queued])
        client.zadd(delayed, {member: 1})
    ran = erni("session", "forget", "s1", "--yes")
    assert ran.code == 0, ran.err
    assert "2 notices to web hooks" in ran.err + ran.out
    assert [fields[b"sessionid"] for _, fields in _entries(client, "webhook.queued")] == [b"s2"]
    [left] = client.zrange(delayed, 0, -1)
    assert b"s2" in left


def test_forgetting_finds_what_hangs_on_a_content_and_not_on_the_session(
    erni: Callable[..., Ran], client: Redis, tmp_path: Path, photo: str
) -> None:
    (tmp_path / "b.jpg").write_bytes(b"another picture")
    erni("publish", photo, str(tmp_path / "b.jpg"), "--session", "s1")
    data = [fields[b"data"].decode() for _, fields in _entries(client, "photo.submitted")]
    client.xtrim(KEYS.stream("photo.submitted"), maxlen=0)
    both, own = (_content(event) for event in data)
    for event in data:
        dies(client, "photo_fetcher", "schema.extracted", fields={"data": event})
    # the picture of a.jpg is on its way for another session as well
    client.xadd(KEYS.stream("schema.extracted"), {"data": data[0]})
    store = tmp_path / "store"
    for sha in (both, own):
        for key in (f"previews/{sha}.jpg", f"previews/{sha}-320.jpg", f"facts/{sha}.json"):
            _plant(store / key)
        _plant(store / f"vision/{sha}-{'1' * 32}.json")
        _plant(store / f"sharepoint/list/{sha}/name.json")
    _plant(store / "sharepoint/drive/seen.json")
    for session in ("s1", "s2"):
        for stream in topology.PUBLIC:
            client.xadd(KEYS.stream(stream), {"sessionid": session, "data": "{}"})
    # its list of photos is gone, as after SESSION_TTL, and the records are still there
    went(client, "schema_extractor")
    went(client, "schema_extractor", photo="p-2", session="s2")
    client.delete(KEYS.session_photos("s1"))
    _counts(client, "s1", received=2, dead=2)
    said = erni("session", "forget", "s1", "--yes")
    assert "1 photo records, 2 dead letters, 7 stored files, 3 public events" in said.err
    left = {str(path.relative_to(store)) for path in store.rglob("*") if path.is_file()}
    # the answers about a shared picture may say what the hints of this session said
    assert left == {
        f"originals/{both}",
        f"previews/{both}.jpg",
        f"previews/{both}-320.jpg",
        f"facts/{both}.json",
        f"sharepoint/list/{both}/name.json",
        "sharepoint/drive/seen.json",
    }
    for stream in topology.PUBLIC:
        assert [fields[b"sessionid"] for _, fields in _entries(client, stream)] == [b"s2"]
    assert not client.exists(KEYS.photo("p-1"))
    assert client.exists(KEYS.photo("p-2"))


@pytest.mark.parametrize("lanes", [1, 3])
def test_what_was_forgotten_is_published_afresh(
    erni: Callable[..., Ran], client: Redis, photo: str, lanes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LANES", str(lanes))
    for session in ("s1", "s1x"):
        erni("publish", photo, "--session", session)
    lane = lane_of("s1", lanes)
    client.xtrim(lane.stream("photo.submitted"), maxlen=0)
    # the session may be gone before the ids
    client.delete(lane.session("s1"))
    assert (
        "0 dead letters, 0 stored files, 0 public events, 1 event ids"
        in erni(*("session", "forget", "s1", "--yes")).err
    )
    again = erni("publish", photo, "--session", "s1", "--json").document
    assert (again["published"], again["already_published"]) == (1, 0)
    assert erni("publish", photo, "--session", "s1x", "--json").document["already_published"] == 1


def test_a_picture_that_is_submitted_again_while_forgetting_asks_stays(
    erni: Callable[..., Ran], client: Redis, tmp_path: Path, photo: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    erni("publish", photo, "--session", "s1")
    ((_, fields),) = _entries(client, "photo.submitted")
    client.xtrim(KEYS.stream("photo.submitted"), maxlen=0)
    dies(client, "photo_fetcher", "schema.extracted", fields={"data": fields[b"data"].decode()})
    _counts(client, "s1", received=1, dead=1)

    def sure(_: str) -> bool:
        client.xadd(KEYS.stream("photo.submitted"), msgspec.convert(fields, dict[Any, Any]))
        return True

    monkeypatch.setattr("console.asking.sure", sure)
    assert erni("session", "forget", "s1").code == 0
    assert [path.read_bytes() for path in (tmp_path / "store" / "originals").iterdir()] == [b"a picture"]
    assert client.xlen(KEYS.dead("photo_fetcher")) == 0


def _content(event: str) -> str:
    return event.partition("store:originals/")[2][:64]


def _plant(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x")


def _entries(client: Redis, stream: str) -> list[tuple[bytes, dict[bytes, bytes]]]:
    return msgspec.convert(client.xrange(KEYS.stream(stream)), list[tuple[bytes, dict[bytes, bytes]]])


def test_a_session_with_photos_on_their_way_is_not_forgotten(
    erni: Callable[..., Ran], client: Redis, photo: str
) -> None:
    erni("publish", photo, "--session", "s1")
    _counts(client, "s1", received=1)
    ran = erni("session", "forget", "s1", "--yes")
    assert ran.code == 1
    assert "s1 has 1 photo on the way: forget it when all have ended" in ran.err


def test_forgetting_asks(erni: Callable[..., Ran], client: Redis, photo: str) -> None:
    erni("publish", photo, "--session", "s1")
    ran = erni("session", "forget", "s1")
    assert ran.code == 2
    assert "say --yes" in ran.err
    assert client.exists(KEYS.session("s1"))


@pytest.mark.parametrize("asked", ["p-1", "a.jpg"])
def test_a_photo_is_found_by_id_and_by_file_name(erni: Callable[..., Ran], client: Redis, asked: str) -> None:
    went(client, "schema_extractor")
    went(client, "photo_fetcher", "dead")
    (shown,) = erni("photo", "show", asked, "--json").document["photos"]
    assert (shown["photo_id"], shown["status"], shown["session_id"]) == ("p-1", "dead", "s1")
    assert shown["trace"] == f"http://localhost:16686/trace/{TRACEPARENT[3:35]}"
    assert [agent["outcome"] for agent in shown["agents"]] == ["done", "dead"]
    text = erni("photo", "show", asked).out
    assert "2026-05-12 10:30:05" in text
    assert "photo_fetcher: SharePoint answered 503" in text
    assert all(agent in text for agent in topology.AGENTS)


def test_a_photo_nobody_knows_is_said(erni: Callable[..., Ran]) -> None:
    ran = erni("photo", "show", "nope.jpg")
    assert ran.code == 1
    assert "no photo has the id or file name nope.jpg" in ran.err
    assert erni("photo", "list", "--session", "s1").code == 1


def test_a_report_is_written_of_what_is_there(
    erni: Callable[..., Ran], client: Redis, tmp_path: Path, photo: str
) -> None:
    erni("publish", photo, "--session", "s1")
    dies(client, "photo_fetcher", "schema.extracted", message="the file is empty")
    # The session's own completion among the dead letters is no photo.
    dies(client, "validation_reporter", "session.completed", photo=None, file_name=None)
    document = erni("report", "s1", "--json").document
    assert (document["validated"], document["dead"]) == (0, 1)
    assert document["report"] == str(tmp_path / "store" / "reports" / "s1" / "report.html")
    assert "the file is empty" in (tmp_path / "store" / "reports" / "s1" / "report.html").read_text()


def test_a_report_of_nothing_is_refused_and_leaves_nothing(erni: Callable[..., Ran], tmp_path: Path) -> None:
    ran = erni("report", "nope")
    assert ran.code == 1
    assert "nothing is known of a session nope" in ran.err
    assert not list(tmp_path.rglob("report.html"))


def test_a_postponed_photo_says_why_it_waits_and_until_when(erni: Callable[..., Ran], client: Redis) -> None:
    step = Step(agent="sharepoint_uploader", started=1_800_000_000, seconds=0.5, attempts=2)
    why = "the library 'Fotos': its storage quota is used up: make room or raise it"
    fields = record_fields(step, "postponed", why, TRACEPARENT, "s1", "a.jpg", 1_800_000_900)
    for name, value in pairs(fields):
        client.hset(KEYS.photo("p-1"), name, value)
    client.expire(KEYS.photo("p-1"), 60)
    shown = " ".join(erni("photo", "show", "p-1").out.split())
    assert f"sharepoint_uploader: postponed after 2 attempts until 2027-01-15 08:15:00 UTC: {why}" in shown
    (photo,) = erni("photo", "show", "a.jpg", "--json").document["photos"]
    assert photo["status"] == "postponed"
    assert photo["agents"][0]["until"] == 1_800_000_900


def test_a_photo_on_its_way_says_why_the_next_agent_does_not_take_it(
    erni: Callable[..., Ran], client: Redis
) -> None:
    went(client, "schema_extractor")
    went(client, "photo_fetcher", photo="p-2")
    down: dict[str, Any] = {"breakers_open": ["source"], "breaker_reasons": {"source": "it answered 503"}}
    beats(client, "photo_fetcher", **down)
    shown = " ".join(erni("photo", "show", "p-1").out.split())
    assert "a.jpg: on its way to photo_fetcher" in shown
    assert "waits: photo_fetcher: " in shown
    assert "it answered 503" in shown
    # what holds up another agent is no reason
    assert "503" not in erni("photo", "show", "p-2").out
    beats(client, "photo_fetcher")
    assert "waits: " not in erni("photo", "show", "p-1").out


def test_a_session_says_which_agent_its_photos_wait_for_until_when_and_why(
    erni: Callable[..., Ran], client: Redis, photo: str
) -> None:
    assert erni("publish", photo, "--session", "s1").code == 0
    for index, until in enumerate((1_900_000_900, 1_900_000_060)):
        step = Step(agent="sharepoint_uploader", started=1_800_000_000, seconds=0.5, attempts=2)
        why = f"storing {index}.jpg: SharePoint answered 507 [request-id ab-{index}]"
        fields = record_fields(step, "postponed", why, TRACEPARENT, "s1", f"{index}.jpg", until)
        for name, value in pairs(fields):
            client.hset(KEYS.photo(f"w-{index}"), name, value)
        client.expire(KEYS.photo(f"w-{index}"), 60)
        client.zadd(KEYS.session_photos("s1"), {f"w-{index}": index})
    client.expire(KEYS.session_photos("s1"), 60)
    shown = erni("session", "show", "s1").out
    assert (
        "postponed  2 photos wait before sharepoint_uploader, the first until 2030-03-17 17:47:40Z: storing"
        " 1.jpg: SharePoint answered 507\n"
    ) in shown


def test_a_photo_that_is_being_tried_again_is_on_its_way_to_the_agent_that_tries_it(
    erni: Callable[..., Ran], client: Redis, photo: str
) -> None:
    step = Step(agent="schema_extractor", started=1_800_000_000, seconds=0.5, attempts=1)
    fields = record_fields(step, "postponed", "SharePoint answered 503", TRACEPARENT, "s1", "a.jpg", 1.0)
    for name, value in pairs(fields):
        client.hset(KEYS.photo("p-9"), name, value)
    client.expire(KEYS.photo("p-9"), 60)
    (shown,) = erni("photo", "show", "p-9", "--json").document["photos"]
    assert shown["status"] == "on its way to schema_extractor"
