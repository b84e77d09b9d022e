"""`erni publish`: bytes into the store, events into the stream, nothing twice."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import re
import signal
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from redis import Redis

from events.types import PhotoSubmitted
from tests.console.pipeline import dies

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from sandbox.redis_server import Valkey
    from tests.console.conftest import Ran


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "Küssnacht Mai"
    (folder / "sub").mkdir(parents=True)
    (folder / "a.jpg").write_bytes(b"first picture")
    (folder / "b.jpg").write_bytes(b"")
    (folder / "sub" / "c.HEIC").write_bytes(b"third picture")
    (folder / "notes.txt").write_text("no photo")
    return folder


def _events(server: Valkey) -> list[tuple[dict[bytes, bytes], PhotoSubmitted]]:
    with Redis.from_url(server.url, protocol=2) as client:
        entries: Any = client.xrange("erni:photo.submitted")
    return [(fields, msgspec.json.decode(fields[b"data"], type=PhotoSubmitted)) for _, fields in entries]


def test_a_folders_photos_are_stored_and_published_into_a_new_session(
    erni: Callable[..., Ran], photos: Path, tmp_path: Path, redis_server: Valkey
) -> None:
    ran = erni("publish", str(photos), "--json")
    assert ran.code == 0
    assert ran.document["session_id"].startswith("Kuessnacht-Mai-2")
    assert (ran.document["published"], ran.document["already_published"], ran.document["skipped"]) == (
        3,
        0,
        1,
    )
    events = _events(redis_server)
    assert {event.file_name for _, event in events} == {"a.jpg", "b.jpg", "c.HEIC"}
    for _, event in events:
        assert event.session_id == ran.document["session_id"]
        assert event.source_url.startswith("store:originals/")
    first = hashlib.sha256(b"first picture").hexdigest()
    assert (tmp_path / "store" / "originals" / first).read_bytes() == b"first picture"
    shown = erni("session", "show", ran.document["session_id"], "--json").document["session"]
    assert (shown["expected"], shown["status"]) == (3, "open")


def test_published_again_into_the_same_session_nothing_is_published_twice(
    erni: Callable[..., Ran], photos: Path, redis_server: Valkey
) -> None:
    first = erni("publish", str(photos), "--session", "s1", "--json").document
    (photos / "d.jpg").write_bytes(b"fourth picture")
    ran = erni("publish", str(photos), "--session", "s1", "--json")
    again = ran.document
    assert (again["published"], again["already_published"]) == (1, 3)
    assert len(_events(redis_server)) == 4
    assert "s1 expects 3 photos since an earlier publish: its report is written again" in ran.err
    said = erni("publish", str(photos), "--session", "s1").err
    assert "4 of 4 photos had been published into s1 before: nothing was done for them" in said
    assert "since an earlier publish" not in said
    (photos / "a.jpg").unlink()
    (photos / "d.jpg").unlink()
    said = erni("publish", str(photos), "--session", "s1").err
    assert "s1 expects 3 photos since an earlier publish and waits for all of them" in said
    entries = {photo["file"]: photo["entry_id"] for photo in first["photos"]}
    assert entries.items() <= {photo["file"]: photo["entry_id"] for photo in again["photos"]}.items()


def test_published_again_dead_letters_are_named_with_the_way_to_replay_them(
    erni: Callable[..., Ran], photos: Path, client: Redis
) -> None:
    first = erni("publish", str(photos), "--session", "s1", "--json").document["photos"]
    assert "dead" not in erni("publish", str(photos), "--session", "s1").err
    dies(client, "photo_fetcher", "schema.extracted", photo=first[0]["photo_id"], session="s1")
    dies(client, "photo_fetcher", "schema.extracted", photo="another", session="s1")
    said = erni("publish", str(photos), "--session", "s1").err
    assert "3 of 3 photos had been published into s1 before" in said
    assert "erni: 1 of them is a dead letter. Look at the cause (erni dead list --session s1)" in said
    assert "then replay: erni dead replay --session s1\n" in said


def test_published_again_without_a_session_it_is_another_one(
    erni: Callable[..., Ran], photos: Path, redis_server: Valkey
) -> None:
    first = erni("publish", str(photos), "--json").document
    second = erni("publish", str(photos), "--json").document
    assert first["session_id"] != second["session_id"]
    assert second["published"] == 3
    assert len(_events(redis_server)) == 6


def test_two_files_of_one_content_are_two_photos_of_one_blob(
    erni: Callable[..., Ran], photos: Path, tmp_path: Path
) -> None:
    (photos / "copy.jpg").write_bytes(b"first picture")
    document = erni("publish", str(photos), "--json").document
    assert len({photo["photo_id"] for photo in document["photos"]}) == 4
    assert len(list((tmp_path / "store" / "originals").iterdir())) == 3


def test_what_is_known_of_the_photos_goes_along(
    erni: Callable[..., Ran], photos: Path, redis_server: Valkey
) -> None:
    erni(
        *(
            "publish",
            str(photos / "a.jpg"),
            "--project",
            "Wohnhaus",
            "--place",
            "Seewen",
            "--taken-at",
            "2026-05-12",
        ),
        *("--library", "Archiv", "--event-id", "mine-1"),
    )
    ((fields, event),) = _events(redis_server)
    assert fields[b"id"] == b"mine-1"
    assert event.hints
    assert (event.hints.project, event.hints.place, event.hints.taken_at) == (
        "Wohnhaus",
        "Seewen",
        "2026-05-12",
    )
    assert event.target
    assert (event.target.library, event.target.site) == ("Archiv", None)


def test_a_host_that_no_setting_allows_is_said_before_its_photos_die(
    erni: Callable[..., Ran], monkeypatch: pytest.MonkeyPatch
) -> None:
    photos = [f"https://photos.example.com/{name}.jpg" for name in ("a", "b")]
    ran = erni("publish", *photos)
    assert ran.code == 0
    assert ran.err.count("add it to SOURCE_HOSTS if it is trusted") == 1
    assert "photos may not be fetched from 'photos.example.com'" in ran.err
    monkeypatch.setenv("SOURCE_HOSTS", "*.example.com")
    assert "SOURCE_HOSTS" not in erni("publish", *photos).err


def test_an_address_is_published_as_it_is(erni: Callable[..., Ran], redis_server: Valkey) -> None:
    assert erni("publish", "https://example.com/x/a.jpg?sig=1").code == 0
    ((_, event),) = _events(redis_server)
    assert (event.source_url, event.file_name) == ("https://example.com/x/a.jpg?sig=1", "a.jpg")


def test_a_file_that_cannot_be_read_is_told_and_the_others_are_published(
    erni: Callable[..., Ran], photos: Path
) -> None:
    (photos / "z.jpg").symlink_to(photos / "nowhere")
    ran = erni("publish", str(photos), "--session", "s1", "--json")
    assert ran.code == 1
    assert ran.document["published"] == 3
    assert ran.document["failed"] == [{"file": str(photos / "z.jpg"), "reason": "a link to nothing"}]
    assert "z.jpg cannot be read" in ran.err
    assert erni("session", "show", "s1", "--json").document["session"]["expected"] == 3


def test_a_file_that_vanishes_meanwhile_is_told_and_not_counted(
    erni: Callable[..., Ran], photos: Path, monkeypatch: pytest.MonkeyPatch, redis_server: Valkey
) -> None:
    from console import publishing

    whole = publishing._sha256

    def vanishing(path: Path) -> str:
        if path.name == "b.jpg":
            path.unlink()
        return whole(path)

    monkeypatch.setattr(publishing, "_sha256", vanishing)
    ran = erni("publish", str(photos), "--session", "s1", "--json")
    assert ran.code == 1
    assert [failed["reason"] for failed in ran.document["failed"]] == ["No such file or directory"]
    assert {event.file_name for _, event in _events(redis_server)} == {"a.jpg", "c.HEIC"}
    assert erni("session", "show", "s1", "--json").document["session"]["expected"] == 2


@pytest.mark.parametrize(
    ("words", "code", "sentence"),
    [
        (("nowhere",), 2, "there is no such file or folder"),
        (("Küssnacht Mai", "--event-id", "x"), 2, "--event-id is for one photo; there are 3"),
        (("Küssnacht Mai/notes.txt", "--session", "a:b"), 2, "session_id 'a:b' cannot be used"),
        (("empty",), 1, "there is no photo to publish"),
    ],
)
def test_what_cannot_be_published_is_said(
    erni: Callable[..., Ran], photos: Path, tmp_path: Path, words: tuple[str, ...], code: int, sentence: str
) -> None:
    (tmp_path / "empty").mkdir()
    ran = erni("publish", *words)
    assert ran.code == code
    assert sentence in ran.err


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (
            ("--taken-at", "gestern"),
            "argument --taken-at: 'gestern' is neither a date nor a time: write 2026-05-12",
        ),
        (
            ("--taken-at", "2026-02-31"),
            "argument --taken-at: '2026-02-31' is in no calendar (day is out of range",
        ),
        (("--taken-at", "1800-01-01"), "argument --taken-at: '1800-01-01' is before 1900 or after 8900"),
        (("--project", "\udcff"), "argument --project: '\\udcff' is not UTF-8"),
        (("--event-id", "  "), "event id '  ' cannot be used"),
        (("--site", " "), "argument --site: is blank: write a text"),
        (("--library", ""), "argument --library: is blank"),
        (("--project", "x" * 100_000), "argument --project: has 100000 characters; 255 are allowed"),
        (("http://localhost:99999/a.jpg",), "has a port that is no number from 0 to 65535"),
        (("https://localhost/\udcff.jpg",), "https://localhost/\\udcff.jpg: is not UTF-8"),
        (("store:",), "store:: ends after store: and names no photo"),
        (("--event-id", "a\tb"), "event id 'a\\tb' cannot be used"),
        (("--event-id", ""), "event id '' cannot be used"),
    ],
)
def test_what_is_wrong_is_refused_before_anything_is_stored_or_sent(
    erni: Callable[..., Ran],
    photos: Path,
    tmp_path: Path,
    redis_server: Valkey,
    words: tuple[str, ...],
    sentence: str,
) -> None:
    ran = erni("publish", str(photos / "a.jpg"), *words)
    assert ran.code == 2
    assert sentence in ran.err
    assert not list(tmp_path.glob("store/**/*"))
    with Redis.from_url(redis_server.url) as client:
        assert client.dbsize() == 0


def test_an_event_id_that_is_known_is_said_and_its_session_does_not_wait(
    erni: Callable[..., Ran], photos: Path, redis_server: Valkey
) -> None:
    words = ("publish", str(photos / "a.jpg"), "--event-id", "e")
    erni(*words, "--session", "s1")
    ran = erni(*words, "--session", "s1")
    assert ran.code == 0
    assert ran.out.startswith("0 photos published\n")
    assert "the event id e was published before (as entry " in ran.err
    ran = erni(*words, "--session", "s2")
    assert ran.code == 1
    assert (
        "a.jpg: the event id 'e' of source 'erni:publish' was published before with other content" in ran.err
    )
    assert len(_events(redis_server)) == 1
    assert erni("session", "show", "s2").code == 1


def test_the_same_photos_with_other_hints_are_not_dropped_without_a_word(
    erni: Callable[..., Ran], photos: Path, redis_server: Valkey
) -> None:
    erni("publish", str(photos / "a.jpg"), "--session", "s1")
    ran = erni("publish", str(photos), "--session", "s1", "--project", "Seewen", "--json")
    assert ran.code == 1
    assert (
        "a.jpg: was published into s1 before with other hints, another target or another address" in ran.err
    )
    answer = json.loads(ran.out)
    assert [one["file"] for one in answer["failed"]] == ["a.jpg"]
    assert answer["published"] == len(_events(redis_server)) - 1 == 2


def test_a_full_backlog_is_waited_for(
    erni: Callable[..., Ran],
    photos: Path,
    monkeypatch: pytest.MonkeyPatch,
    redis_server: Valkey,
) -> None:
    monkeypatch.setenv("MAX_BACKLOG", "1")

    async def make_room(seconds: float) -> None:
        assert seconds > 0
        with Redis.from_url(redis_server.url) as client:
            client.xtrim("erni:photo.submitted", maxlen=0)

    monkeypatch.setattr("console.publishing.asyncio.sleep", make_room)
    ran = erni("publish", str(photos), "--json")
    assert ran.code == 0
    assert ran.document["published"] == 3
    assert "waiting: photo.submitted holds" in ran.err


def test_a_store_that_cannot_be_used_is_said(
    erni: Callable[..., Ran], photos: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("PHOTO_STORE_URL", str(tmp_path / "file" / "store"))
    ran = erni("publish", str(photos), "--json")
    assert ran.code == 1
    assert ran.document["error"].startswith(f"the photo store {tmp_path}/file/store cannot be used (")


def test_a_store_that_takes_no_more_stops_the_publish_and_says_how_to_go_on(
    erni: Callable[..., Ran], photos: Path, tmp_path: Path
) -> None:
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "originals").write_text("a file where a folder has to be")
    ran = erni("publish", str(photos), "--session", "s1")
    assert ran.code == 1
    assert ran.err.count("cannot be used") == 1
    assert "So far nothing is published. The same command publishes the others, and none twice." in ran.err
    assert erni("session", "show", "s1").code == 1


def test_cut_short_by_redis_it_says_how_to_go_on(
    erni: Callable[..., Ran], photos: Path, monkeypatch: pytest.MonkeyPatch, own_redis_server: Valkey
) -> None:
    from console import publishing

    monkeypatch.setenv("REDIS_URL", own_redis_server.url)
    whole = publishing._sha256

    def killing(path: Path) -> str:
        if path.name == "c.HEIC":
            own_redis_server.kill()
        return whole(path)

    monkeypatch.setattr(publishing, "_sha256", killing)
    monkeypatch.setattr(publishing, "_AT_ONCE", 1)
    ran = erni("publish", str(photos), "--session", "s1")
    assert ran.code == 1
    assert "does not answer (connection refused)" in ran.err
    assert (
        "So far at least 2 photos are published. The same command publishes the others, and none twice;"
        in ran.err
    )
    own_redis_server.start()
    monkeypatch.setattr(publishing, "_sha256", whole)
    again = erni("publish", str(photos), "--session", "s1", "--json").document
    assert (again["published"], again["already_published"]) == (1, 2)
    assert erni("session", "show", "s1", "--json").document["session"]["expected"] == 3


def test_an_interrupted_publish_says_how_far_it_came_and_leaves_no_session_waiting(
    photos: Path, tmp_path: Path, redis_server: Valkey, redis_url: str
) -> None:
    words = [sys.executable, "-m", "console.main", "publish", str(photos)]
    setting = {"REDIS_URL": redis_url, "PHOTO_STORE_URL": str(tmp_path / "store"), "MAX_BACKLOG": "1"}
    with subprocess.Popen(words, env={**os.environ, **setting}, stderr=subprocess.PIPE, text=True) as running:
        assert running.stderr
        assert "waiting: photo.submitted holds 1 entries" in running.stderr.readline()
        running.send_signal(signal.SIGINT)
        said = running.communicate(timeout=20)[1]
    assert running.returncode == 130
    assert re.fullmatch(
        # the interrupt may come before the answer about the first one is read
        r"erni: interrupted: (?:(?:at least |at most )?1 photo is|at most \d photos are) published\."
        r" The same command with --session"
        r" (Kuessnacht-Mai-\S+) publishes the others, and none twice;"
        r" if there are none, `erni session close \1` ends it\.\n",
        said,
    )
    with Redis.from_url(redis_server.url) as client:
        # the note of the first event opens no session
        left = [key for key in client.keys("erni:session:*") if not key.endswith(b":first")]
        assert left == []


def test_interrupted_with_events_under_way_it_says_what_is_certain(
    erni: Callable[..., Ran], photos: Path, monkeypatch: pytest.MonkeyPatch, redis_server: Valkey
) -> None:
    from console import publishing
    from events.publisher import Publisher

    whole = Publisher.publish
    sent = []

    async def interrupted(
        publisher: Publisher, event: PhotoSubmitted, *, event_id: str | None = None, bulk: bool = False
    ) -> Any:
        published = await whole(publisher, event, event_id=event_id, bulk=bulk)
        sent.append(event)
        if len(sent) == 2:
            signal.raise_signal(signal.SIGINT)
            await asyncio.Event().wait()
        return published

    monkeypatch.setattr(Publisher, "publish", interrupted)
    monkeypatch.setattr(publishing, "_AT_ONCE", 1)
    ran = erni("publish", str(photos), "--session", "s1", "--json")
    assert ran.code == 130
    assert ran.document["error"].startswith("interrupted: at least 1 photo is published. The same command")
    assert len(_events(redis_server)) == 2


def test_interrupted_while_it_looks_it_says_that_nothing_is_published(
    erni: Callable[..., Ran], photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from console import photo_files

    whole = photo_files.find

    def interrupted(words: list[str]) -> photo_files.Found:
        signal.raise_signal(signal.SIGINT)
        return whole(words)

    monkeypatch.setattr(photo_files, "find", interrupted)
    ran = erni("publish", str(photos), "--session", "s1")
    assert ran.code == 130
    assert "erni: interrupted: nothing is published. The same command publishes the others" in ran.err


def test_a_link_that_leads_out_of_the_folder_is_told_and_skipped(
    erni: Callable[..., Ran], photos: Path, tmp_path: Path
) -> None:
    (tmp_path / "secret").write_bytes(b"nobody meant this")
    (photos / "z.jpg").symlink_to(tmp_path / "secret")
    ran = erni("publish", str(photos), "--json")
    assert ran.code == 0
    assert (ran.document["published"], ran.document["skipped"]) == (3, 2)
    assert f"erni: {photos}/z.jpg is a link that leads out of the folder: skipped" in ran.err
    stored = (tmp_path / "store" / "originals").iterdir()
    assert b"nobody meant this" not in [path.read_bytes() for path in stored]


@pytest.mark.parametrize("zone", ["<+14>-14", "<-12>12"])
def test_the_name_of_a_session_has_the_day_of_this_machine(zone: str) -> None:
    # two zones in which it is never the same day
    words = "import sys; from console.photo_files import new_session_id; print(new_session_id(sys.argv[1:]))"
    day = (datetime.now(UTC) + timedelta(hours=14 if "14" in zone else -12)).date()
    ran = subprocess.run(
        [sys.executable, "-c", words, "Fotos"],
        env={**os.environ, "TZ": zone},
        capture_output=True,
        text=True,
        check=True,
    )
    later = (datetime.now(UTC) + timedelta(hours=14 if "14" in zone else -12)).date()
    assert ran.stdout.startswith((f"Fotos-{day}-", f"Fotos-{later}-"))
