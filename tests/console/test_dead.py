"""`erni dead`: find out why, and send them through again."""

from __future__ import annotations

import asyncio
import base64
import os
import pty
import re
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from events.connection import connect
from shared.operations.dead_letters import DeadFilter, DeadLetters, dead_of_session
from shared.operations.letter_pages import AT_FIRST
from tests.console.pipeline import KEYS, TRACEPARENT, dies

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from redis import Redis

    from tests.console.conftest import Ran

_UPLOADER = ("sharepoint_uploader", "photo.analyzed")
_FETCHER = ("photo_fetcher", "schema.extracted")


@pytest.fixture
def letters(client: Redis) -> list[str]:
    return [
        dies(client, *_UPLOADER, message="SharePoint answered 503 for item 17"),
        dies(
            client, *_UPLOADER, message="SharePoint answered 503 for item 18", photo="p-2", file_name="b.jpg"
        ),
        dies(client, *_FETCHER, message="the file is empty", reason="permanent", session="s2", photo="p-3"),
    ]


def test_alike_failures_are_listed_together_the_most_frequent_first(
    erni: Callable[..., Ran], letters: list[str]
) -> None:
    document = erni("dead", "list", "--json").document
    assert document["total"] == 3
    assert [group["count"] for group in document["groups"]] == [2, 1]
    assert [letter["id"] for letter in document["groups"][0]["letters"]] == letters[:2]
    text = erni("dead", "list").out
    assert "2 dead letters of sharepoint_uploader  exhausted  HttpStatusError" in text
    assert "b.jpg" in text


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (("--agent", "photo_fetcher"), 1),
        (("--reason", "permanent"), 1),
        (("--error-type", "HttpStatusError"), 3),
        (("--session", "s1"), 2),
        (("--photo", "p-2"), 1),
        (("--photo", "b.jpg"), 1),
        (("--photo", "B.jpg"), 0),
        (("--photo", "B.*"), 1),
        (("--session", "S*"), 3),
        (("--newer-than", "1h"), 3),
        (("--older-than", "1h"), 0),
        (("--newer-than", "2000-01-01"), 3),
        (("--limit", "1"), 1),
        (("--session", "s1", "--photo", "p-3"), 0),
    ],
)
def test_filters_narrow_it_down(
    erni: Callable[..., Ran], letters: list[str], words: tuple[str, ...], found: int
) -> None:
    assert erni("dead", "list", *words, "--json").document["total"] == found


def test_one_is_shown_with_its_entry_and_where_its_trace_is(erni: Callable[..., Ran], client: Redis) -> None:
    dead_id = dies(client, *_UPLOADER, fields={"data": '{"photo_id":"p-1"}', "x-own": "Grüezi"})
    document = erni("dead", "show", dead_id, "--json").document
    assert document["original"] == [["data", '{"photo_id":"p-1"}'], ["x-own", "Grüezi"]]
    assert document["trace"] == f"http://localhost:16686/trace/{TRACEPARENT[3:35]}"
    text = erni("dead", "show", dead_id).out
    assert text.startswith("SharePoint answered 503\n")
    assert f"erni dead replay --fingerprint {document['letter']['fingerprint']}" in text


def test_one_fits_into_80_columns(
    erni: Callable[..., Ran], client: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    message = "SharePoint answered 503 for the library Referenzfotos of the site Bau: " + "try it later " * 8
    dead_id = dies(client, *_UPLOADER, message=message, deliveries=3, attempts=2, answer="Das Foto " * 30)
    monkeypatch.setenv("COLUMNS", "80")
    shown = erni("dead", "show", dead_id).out
    about, entry = shown.split("the entry as it came:")
    # the entry stays as it is, for who copies it
    lines = about.splitlines() + entry.splitlines()[-3:]
    assert [line for line in lines if len(line) > 80 and "grep" not in line] == []
    assert " ".join(about.split()).count(" ".join(message.split())) == 3


def test_more_deliveries_than_attempts_are_explained(erni: Callable[..., Ran], client: Redis) -> None:
    once, thrice = (dies(client, *_UPLOADER, deliveries=number, attempts=1) for number in (1, 3))
    said = "at delivery 3; the attempts below were made in that one, the others ended in a postponement"
    assert said in erni("dead", "show", thrice).out
    assert "at delivery 1\n" in erni("dead", "show", once).out


async def test_what_dies_while_they_are_read_is_not_among_them(redis_url: str, client: Redis) -> None:
    first = {dies(client, *_FETCHER) for _ in range(3 * AT_FIRST)}  # two full pages
    found: list[str] = []
    async with connect(redis_url) as redis:
        async for letter in DeadLetters(redis).find(DeadFilter()):
            if not found:
                # somebody replayed it, and it died again, in the stream that is read and in a later one
                dies(client, *_FETCHER)
                dies(client, *_UPLOADER)
            found.append(letter.id)
    assert len(found) == 3 * AT_FIRST
    assert set(found) == first


def test_what_stands_in_a_message_is_text_and_no_markup(erni: Callable[..., Ran], client: Redis) -> None:
    dies(client, *_UPLOADER, message="[bold]not[/] [link=x]markup[/link]")
    assert "[bold]not[/] [link=x]markup[/link]" in erni("dead", "list").out


def test_a_replay_moves_them_back_and_says_how_many(
    erni: Callable[..., Ran], letters: list[str], client: Redis
) -> None:
    ran = erni("dead", "replay", "--agent", "sharepoint_uploader", "--json")
    assert ran.code == 0
    assert (ran.document["replayed"], ran.document["gone"], ran.document["refused"]) == (2, 0, 0)
    assert client.xlen(KEYS.stream("photo.analyzed")) == 2
    assert client.xlen(KEYS.dead("sharepoint_uploader")) == 0
    assert client.xlen(KEYS.dead("photo_fetcher")) == 1


def test_a_dry_run_changes_nothing(erni: Callable[..., Ran], letters: list[str], client: Redis) -> None:
    ran = erni("dead", "replay", "--all", "--dry-run")
    assert ran.out.endswith("3 dead letters would be replayed; nothing was changed\n")
    assert client.xlen(KEYS.dead("sharepoint_uploader")) == 2
    assert client.xlen(KEYS.stream("photo.analyzed")) == 0


def test_an_interrupted_replay_says_how_far_it_came(
    letters: list[str], client: Redis, redis_url: str
) -> None:
    words = [sys.executable, "-m", "console.main", "dead", "replay", "--all", "--rate", "1/h"]
    with subprocess.Popen(
        words, env={**os.environ, "REDIS_URL": redis_url}, stderr=subprocess.PIPE, text=True
    ) as running:
        # the first is moved at once, the second in an hour
        assert client.xread({KEYS.stream("schema.extracted"): "0"}, block=20_000)
        running.send_signal(signal.SIGINT)
        said = running.communicate(timeout=20)[1]
    assert running.returncode == 130
    # the answer to the first may have been on its way to it
    assert re.fullmatch(
        r"(1 dead letter replayed so far; the others are where they were\n)?erni: interrupted\n", said
    )
    assert client.xlen(KEYS.dead("sharepoint_uploader")) == 2


def test_a_replay_that_loses_its_lease_says_how_far_it_came_and_how_to_go_on(
    erni: Callable[..., Ran], letters: list[str], client: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def lost(*_: object) -> int:
        return 0

    monkeypatch.setattr("shared.operations.bulk_runner.LEASE_SECONDS", 1.5)
    monkeypatch.setattr("shared.operations.bulk_runner._RENEW", lost)
    ran = erni("dead", "replay", "--all", "--rate", "1/h")
    assert ran.code == 1
    assert ran.err.startswith("erni: 1 dead letter replayed so far, then another process took over")
    assert "run the command again" in ran.err
    assert client.xlen(KEYS.dead("sharepoint_uploader")) == 2


def test_an_operation_that_another_process_drives_is_left_to_it(
    erni: Callable[..., Ran], letters: list[str], client: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shared.operations.bulk_runner.lease_key", lambda _: "erni:operation-lease:x")
    client.set("erni:operation-lease:x", "another", ex=60)
    ran = erni("dead", "replay", "--all")
    assert (ran.code, ran.out) == (1, "")
    assert "another process works on this operation already" in ran.err
    assert client.xlen(KEYS.dead("sharepoint_uploader")) == 2


@pytest.mark.parametrize("words", [("dead", "discard", "--all"), ("session", "forget", "s1")], ids=" ".join)
def test_ctrl_c_at_a_question_ends_the_command_in_a_line(
    letters: list[str], client: Redis, redis_url: str, tmp_path: Path, words: tuple[str, ...]
) -> None:
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-m", "console.main", *words],
        env={**os.environ, "REDIS_URL": redis_url, "PHOTO_STORE_URL": str(tmp_path / "store")},
        stdin=theirs,
        stderr=subprocess.PIPE,
    ) as running:
        os.close(theirs)
        assert running.stderr
        said = b""
        while not said.endswith(b"[y/N] "):
            said += running.stderr.read(1)
        running.send_signal(signal.SIGINT)
        try:
            assert running.communicate(timeout=20)[1] == b"\nerni: interrupted\n"
        finally:
            running.kill()
    os.close(ours)
    assert running.returncode == 130
    assert client.xlen(KEYS.dead("sharepoint_uploader")) == 2


@pytest.mark.parametrize("words", [("replay",), ("replay", "--dry-run"), ("discard", "--yes")])
def test_a_filter_that_nothing_matches_is_said(erni: Callable[..., Ran], words: tuple[str, ...]) -> None:
    ran = erni("dead", *words, "--fingerprint", "000000000000")
    assert ran.code == 0
    assert ran.out.endswith(": nothing matches (erni dead list shows what there is)\n")


def test_one_that_no_agent_wrote_is_refused_with_a_sentence(erni: Callable[..., Ran], client: Redis) -> None:
    client.xadd(KEYS.dead("photo_fetcher"), {"foreign": "entry"})
    ran = erni("dead", "replay", "--all", "--json")
    assert ran.code == 1
    assert ran.document["refused"] == 1
    assert "it holds no original entry" in ran.err


@pytest.mark.parametrize("verb", ["replay", "discard"])
def test_without_a_filter_all_must_be_said(
    erni: Callable[..., Ran], letters: list[str], client: Redis, verb: str
) -> None:
    assert erni("dead", verb).code == 2
    assert erni("dead", verb, "--limit", "1").code == 2
    assert erni("dead", verb, "--all", "--session", "s1").code == 2
    assert client.xlen(KEYS.dead("sharepoint_uploader")) == 2


def test_a_discard_asks(
    erni: Callable[..., Ran], letters: list[str], client: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    nobody = erni("dead", "discard", "--session", "s1")
    assert nobody.code == 2
    assert "say --yes" in nobody.err
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("sys.stdin.readline", lambda: "n\n", raising=False)
    assert erni("dead", "discard", "--session", "s1").code == 1
    assert client.xlen(KEYS.dead("sharepoint_uploader")) == 2
    monkeypatch.setattr("sys.stdin.readline", lambda: "y\n", raising=False)
    assert erni("dead", "discard", "--session", "s1", "--json").document == {"discarded": 2}
    assert client.xlen(KEYS.dead("sharepoint_uploader")) == 0
    assert client.xlen(KEYS.dead("photo_fetcher")) == 1


def test_a_discard_for_good_keeps_nothing_and_says_so(
    erni: Callable[..., Ran], letters: list[str], client: Redis
) -> None:
    asked = erni("dead", "discard", "--session", "s1", "--for-good")
    assert "2 dead letters will be deleted for good (--for-good)" in asked.err
    assert (
        erni("dead", "discard", "--session", "s1", "--for-good", "--yes").out == "2 dead letters discarded\n"
    )
    assert client.exists(KEYS.archive("sharepoint_uploader")) == 0


def test_what_was_discarded_is_listed_and_restored_or_forgotten_with_its_session(
    erni: Callable[..., Ran], letters: list[str], client: Redis
) -> None:
    assert erni("dead", "discard", "--session", "s1", "--yes").out == (
        "2 dead letters discarded; back with: erni dead restore\n"
    )
    assert "no discarded dead letter" in erni("dead", "archive", "list", "--session", "s9").out
    shown = erni("dead", "archive", "list").out
    assert "2 dead letters of sharepoint_uploader" in shown
    assert erni("dead", "archive", "list", "--json").document["total"] == 2
    assert erni("dead", "restore").code == 2
    assert erni("dead", "restore", "--limit", "1", "--session", "s1", "--json").document == {"restored": 1}
    assert client.xlen(KEYS.dead("sharepoint_uploader")) == 1
    assert client.xlen(KEYS.archive("sharepoint_uploader")) == 1
    assert erni("dead", "restore", "--session", "s9").out == (
        "0 dead letters restored: nothing matches (erni dead archive list shows them)\n"
    )
    assert erni("session", "forget", "s1", "--yes", "--json").document["dead_letters"] == 2
    assert client.xlen(KEYS.archive("sharepoint_uploader")) == 0


def test_what_is_not_there_is_said(erni: Callable[..., Ran]) -> None:
    assert erni("dead", "list").out.startswith("no dead letter\n")
    assert erni("dead", "list", "--session", "s1").out.startswith("no dead letter matches\n")
    gone = erni("dead", "show", "1-1")
    assert gone.code == 1
    assert "there is no dead letter 1-1" in gone.err
    assert erni("dead", "show", "x").code == 2


async def test_a_report_that_failed_is_named_by_its_session_and_is_no_dead_photo(
    erni: Callable[..., Ran], client: Redis, redis_url: str
) -> None:
    dead_id = dies(
        client, "validation_reporter", "session.completed", session="s1", photo=None, file_name=None
    )
    dies(client, "photo_fetcher", "schema.extracted", session="s1")
    for words in (("list",), ("show", dead_id, "--agent", "validation_reporter")):
        shown = await asyncio.to_thread(erni, "dead", *words)
        assert "report of s1" in shown.out
        assert "(unreadable)" not in shown.out
    async with connect(redis_url) as redis:
        assert [letter.agent for letter in await dead_of_session(redis, "s1")] == ["photo_fetcher"]


def test_what_a_model_answered_is_shown(erni: Callable[..., Ran], client: Redis) -> None:
    dead_id = dies(
        client, "vision_analyzer", "photo.fetched", message="cut off", answer="Das Foto zeigt " * 40
    )
    shown = erni("dead", "show", dead_id).out
    assert f"it answered  {('Das Foto zeigt ' * 40)[:300]}\n" in shown


def test_an_entry_of_random_bytes_is_shown_without_steering_the_terminal(
    erni: Callable[..., Ran], client: Redis
) -> None:
    fields = [b"data", b"\xff\x1b[2J\x00end", b"\x9b\x07" * 100, b"y" * 9000]
    fields += [part for n in range(200) for part in (b"f%d" % n, b"1")]
    letter = dies(
        client, *_FETCHER, message="no event: \x1b]0;owned\x07", reason="undecodable", original=fields
    )
    text = erni("dead", "show", letter).out
    assert not set(text) & set("\x1b\x07\x00\x9b")
    assert r"\xff\x1b[2J\x00end" in text
    assert "(9000 bytes)" in text
    assert "and 162 fields more" in text
    document = erni("dead", "show", letter, "--json").document
    assert [base64.b64decode(part) for pair in document["original_base64"] for part in pair] == fields


def test_listing_many_reads_few_of_them(
    erni: Callable[..., Ran], client: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(1200):
        dies(
            client,
            "photo_fetcher",
            "schema.extracted",
            message="no photo in it" if number % 3 else "source answered 404",
            session=f"s{number % 2}",
            file_name=f"{number}.jpg",
        )
    dies(client, "vision_analyzer", "photo.fetched", message="nothing usable")
    client.config_resetstat()
    text = erni("dead", "list").out
    assert "800 dead letters of photo_fetcher" in text
    assert "400 dead letters of photo_fetcher" in text
    assert "1 dead letter of vision_analyzer" in text
    assert text.splitlines()[-2] == "1201 dead letters"
    assert "1199.jpg" in text
    ranges = client.info("commandstats")["cmdstat_xrange"]["calls"]
    assert ranges < 40, "a read for each dead letter"
    assert "601 dead letters" in erni("dead", "list", "--session", "s1").out
    assert "no dead letter matches" in erni("dead", "list", "--photo", "nowhere.jpg").out
    assert erni("dead", "list", "--photo", "7.jpg").out.splitlines()[-2] == "1 dead letter"


def test_what_is_in_the_archive_is_deleted_for_good_when_that_is_meant(
    erni: Callable[..., Ran], client: Redis
) -> None:
    for session in ("s1", "s1", "s2"):
        dies(client, "photo_fetcher", "schema.extracted", session=session)
    assert erni("dead", "discard", "--all", "--yes").code == 0
    refused = erni("dead", "archive", "delete")
    assert (refused.code, client.xlen(KEYS.archive("photo_fetcher"))) == (2, 3)
    assert "without a filter this would delete every dead letter" in refused.err
    ran = erni("dead", "archive", "delete", "--session", "s1", "--yes")
    assert (ran.code, ran.out) == (0, "2 dead letters deleted\n")
    assert client.xlen(KEYS.archive("photo_fetcher")) == 1
    assert erni("dead", "archive", "delete", "--all", "--yes", "--json").document == {"deleted": 1}
    assert "nothing matches" in erni("dead", "archive", "delete", "--all", "--yes").out
