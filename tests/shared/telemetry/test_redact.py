"""What `scrub` takes out, and what it leaves alone."""

from __future__ import annotations

import time
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.settings import Secret, Settings
from shared.telemetry import redact
from shared.telemetry.redact import (
    LONGEST,
    hidden_name,
    public_source,
    remember_secrets,
    scrub,
    scrub_value,
    secrets_of,
)

CANARY = "kanarienvogel-4711"


@pytest.fixture(autouse=True)
def _no_known_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redact, "_known", ())


@pytest.mark.parametrize(
    "text",
    [
        f"GET https://graph.example/v1/drives/b?sig={CANARY} failed",
        f"GET https://graph.example/v1/drives/b#{CANARY} failed",
        f"cannot reach redis://:{CANARY}@cache:6379/0",
        f"cannot reach rediss://erni:{CANARY}@cache:6379/0?db=1",
        f"cannot reach https://erni:with@sign{CANARY}@host/x",
        f"Authorization: Bearer {CANARY}",
        f"{{'Authorization': 'Basic {CANARY}', 'Accept': '*/*'}}",
        f"sent with bearer {CANARY}",
        f"Set-Cookie: session={CANARY}; Path=/",
        f"X-Api-Key: {CANARY}",
        f"api_key={CANARY}&model=x",
        f'{{"client_secret": "{CANARY}"}}',
        f"client_secret={CANARY}",
        f"password = {CANARY}",
        f"DefaultEndpointsProtocol=https;AccountName=erni;AccountKey={CANARY}==;EndpointSuffix=x",
        f"/drives/b/content?tempauth=1&sig={CANARY}",
        f"access_token:{CANARY}",
        f"/maps/api?key={CANARY}",
        f"the token eyJhbGciOiJIUzI1NiJ9.{CANARY}.abc was refused",
        f"key sk-proj-{CANARY} was refused",
    ],
)
def test_a_secret_is_not_in_what_is_left(text: str) -> None:
    assert CANARY not in scrub(text)


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("https://erni@host.example/a/b?x=1#y", "https://host.example/a/b?***"),
        ("see https://host.example/a/b, then stop", "see https://host.example/a/b, then stop"),
        ('url="https://host.example/a?b" status=500', 'url="https://host.example/a?***" status=500'),
    ],
)
def test_an_address_keeps_host_and_path(text: str, left: str) -> None:
    assert scrub(text) == left


@pytest.mark.parametrize(
    "text",
    [
        "47.376888, 8.541694",
        "taken at 47.3769,8.5417 by",
        "geo:47.376888,8.541694",
        "POINT (8.541694 47.376888)",
        "47.376888° N, 8.541694° E",
        "{'latitude': 47.376888, 'longitude': 8.541694}",
        "lat=47.38 lon=8.54",
        '"lat":47.376888,"lon":8.541694',
        "GPSLatitude=47, 22, 36.8",
        "47°22'36.8\"N 8°32'30.1\"E",
        "47\u00b022\u203236.8\u2033N",
        "LV95 2683190 / 1247900",
        "2'683'190, 1'247'900",
    ],
)
def test_a_position_is_not_in_what_is_left(text: str) -> None:
    left = scrub(text)
    assert "[position]" in left
    for part in ("376", "541", "47", "8.5", "683", "247", "36.8", "22"):
        assert part not in left.replace("[position]", "")


@pytest.mark.parametrize(
    "text",
    [
        "SharePoint answered 503 to the upload of Erni_Referenzfoto_2026-05-12_abcdef012345.jpg",
        "attempt 2 of 3 failed after 4.125 s",
        "entry 1780000000000-0 of erni:photo.fetched, deliveries 2",
        "monkey: the keyboard, a token of thanks",
        "the column 'Bauteil' allows Fassade, Dach; it was sent Keller",
        "Graph said code: itemNotFound, code=503",
        "the key: erni:dead:photo_fetcher",
        "confidence 0.93 and 0.12",
        "traceparent 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-03",
        "error at 2026-05-12T08:15:30.123456Z",
    ],
)
def test_a_harmless_sentence_stays_as_it_is(text: str) -> None:
    assert scrub(text) == text


def test_every_secret_of_the_settings_is_known_also_where_it_stands_in_an_address_or_is_quoted() -> None:
    settings = Settings(
        redis_url="redis://:pass word/1@cache:6379/0",
        redis_password=Secret("redis-geheim"),
        azure_client_secret="azure~geheim+/=",
        vision_api_key=Secret("vision-geheim"),
        photo_store_url="az://photos?sig=store-geheim",
    )
    found = secrets_of(settings)
    assert {"redis-geheim", "azure~geheim+/=", "vision-geheim", "sig=store-geheim"} <= set(found)
    remember_secrets(found)
    text = (
        f"it said redis-geheim, {quote('azure~geheim+/=', safe='')}, vision-geheim and azure~geheim+/= again"
    )
    assert "geheim" not in scrub(text)


def test_a_secret_that_begins_like_another_does_not_leave_the_others_end() -> None:
    remember_secrets(["abcd", "abcdefgh"])
    assert scrub("abcdefgh abcd") == "*** ***"


def test_a_word_of_three_letters_is_no_secret_to_look_for() -> None:
    remember_secrets(["ein"])
    assert scrub("ein Stein") == "ein Stein"


@pytest.mark.parametrize(
    "name", ["password", "vision_api_key", "client_secret", "Authorization", "x-api-key"]
)
def test_a_value_with_a_secrets_name_is_hidden_whatever_it_is(name: str) -> None:
    assert hidden_name(name) == "***"


@pytest.mark.parametrize("name", ["latitude", "gps_latitude", "exif.gpslongitude", "lon"])
def test_a_value_with_a_positions_name_is_hidden_whatever_it_is(name: str) -> None:
    assert scrub_value({name: 47.37}) == {name: "[position]"}


@pytest.mark.parametrize(
    "name", ["photo_id", "key", "monkey", "keywords", "platform", "colon", "token_count"]
)
def test_a_harmless_name_hides_nothing(name: str) -> None:
    assert hidden_name(name) is None


def test_values_of_every_kind_are_scrubbed_and_numbers_stay_numbers() -> None:
    value = {
        "n": 3,
        "f": 1.5,
        "b": True,
        "none": None,
        "list": [f"token={CANARY}", {"deep": f"https://x/?{CANARY}"}],
        "bytes": f"token={CANARY}".encode(),
        "secret": Secret(CANARY),
        "object": ValueError(f"token={CANARY}"),
    }
    cleaned = scrub_value(value)
    assert CANARY not in repr(cleaned)
    assert isinstance(cleaned, dict)
    assert (cleaned["n"], cleaned["f"], cleaned["b"], cleaned["none"]) == (3, 1.5, True, None)


@given(st.text(max_size=200), st.text(max_size=200))
def test_a_remembered_secret_is_never_left_and_scrubbing_twice_changes_nothing(
    before: str, after: str
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(redact, "_known", (CANARY,))
        left = scrub(before + CANARY + after)
        assert CANARY not in left
        assert scrub(left) == left


@pytest.mark.parametrize(
    "text",
    [
        "a" * 2_000_000,
        "https://" + "a@" * 100_000,
        "key=" * 100_000,
        "1.000," * 100_000,
        "eyJ" * 200_000,
        "2 " * 200_000,
    ],
)
def test_a_hostile_text_is_cut_and_takes_no_time(text: str) -> None:
    began = time.process_time()
    assert len(scrub(text)) <= 2 * LONGEST
    assert time.process_time() - began < 1


@pytest.mark.parametrize(
    ("source", "shown"),
    [
        ("https://host.example/a%20b.jpg?sig=s3cret#x", "https://host.example/a%20b.jpg"),
        ("https://user:pass@host.example:8443/a.jpg", "https://host.example:8443/a.jpg"),
        ("store:originals/abc", "store:originals/abc"),
        ("file:///photos/a.jpg", "file:///photos/a.jpg"),
        ("https://[broken/a.jpg?sig=s3cret", "https:"),
    ],
)
def test_a_source_is_shown_without_query_and_userinfo(source: str, shown: str) -> None:
    assert public_source(source) == shown
