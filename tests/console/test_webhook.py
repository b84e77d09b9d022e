"""`erni webhook`: a secret is shown once, and what is wrong with a web hook is said."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest

from tests.console.webhook_notices import POSTPONED, notice

if TYPE_CHECKING:
    from collections.abc import Callable

    from redis import Redis

    from tests.console.conftest import Ran

ADD = ("webhook", "add", "https://hooks.example.org/erni", "--source", "urn:camera-app")
ID = re.compile(r"wh_[0-9a-f]{12}")


def test_the_secret_is_printed_once_and_listed_nowhere(erni: Callable[..., Ran]) -> None:
    ran = erni(*ADD)
    name, secret = ran.out.split()
    assert ID.fullmatch(name)
    assert secret.startswith("whsec_")
    assert "not shown again" in ran.err
    listed = erni("webhook", "list")
    assert f"{name}  on       urn:camera-app  https://hooks.example.org/erni" in listed.out
    assert "photo.validated, photo.failed, session.reported" in listed.out
    document = erni("webhook", "list", "--json")
    [hook] = document.document["webhooks"]
    assert hook["state"] == "on"
    assert secret not in listed.out + document.out


def test_agents_are_shown_nothing_secret(erni: Callable[..., Ran], client: Redis) -> None:
    name, secret = erni(*ADD).out.split()
    index = str(client.hgetall("erni:{webhooks}"))
    assert name in index
    assert secret not in index
    assert "hooks.example.org" not in index


def test_v1a_prints_the_public_key_alone(erni: Callable[..., Ran]) -> None:
    ran = erni(*ADD, "--signature", "v1a", "--json")
    assert ran.document.keys() == {"id", "signature", "public_key"}
    assert ran.document["public_key"].startswith("whpk_")
    assert "whsk_" not in ran.out + ran.err


def test_rotate_makes_a_new_secret_and_waits_a_day_for_the_next(erni: Callable[..., Ran]) -> None:
    name, secret = erni(*ADD).out.split()
    rotated = erni("webhook", "rotate", name, "--json").document
    assert rotated["secret"] != secret
    again = erni("webhook", "rotate", name)
    assert again.code == 2
    assert "its old secret still counts for 24 h" in again.err


def test_a_web_hook_that_is_off_says_why_and_how_to_go_on(erni: Callable[..., Ran], client: Redis) -> None:
    name, _ = erni(*ADD).out.split()
    client.hset(f"erni:{{webhooks}}:{name}", mapping={"off_since": "1780000000.000", "off_reason": "410"})
    client.hset("erni:{webhooks}", name, "")
    ran = erni("webhook", "list")
    assert f"{name}  off" in ran.out
    assert f": 410. erni webhook enable {name}" in ran.err
    assert erni("webhook", "enable", name).code == 0
    assert f"{name}  on" in erni("webhook", "list").out
    assert client.hget("erni:{webhooks}", name)


def test_a_web_hook_can_be_switched_off_for_a_while(erni: Callable[..., Ran]) -> None:
    name, _ = erni(*ADD).out.split()
    ran = erni("webhook", "disable", name)
    assert f"erni webhook enable {name}" in ran.out
    listed = erni("webhook", "list")
    assert f"{name}  off" in listed.out
    assert " switched it off" in listed.err
    assert erni("webhook", "enable", name).code == 0
    assert f"{name}  on" in erni("webhook", "list").out


def test_a_web_hook_that_fails_says_since_when_and_why(erni: Callable[..., Ran], client: Redis) -> None:
    name, _ = erni(*ADD).out.split()
    why = "this machine does not trust the endpoint's certificate (certificate has expired)"
    client.hset(f"erni:{{webhooks}}:{name}", mapping={"failing_since": "1780000000.000", "error": why})
    ran = erni("webhook", "list")
    assert f"{name}  failing" in ran.out
    assert f"failing since 2026-05-28 20:26:40Z: {why}" in ran.err
    (hook,) = erni("webhook", "list", "--json").document["webhooks"]
    assert (hook["state"], hook["error"]) == ("failing", why)


def test_the_next_try_of_each_web_hook_that_fails_is_said(erni: Callable[..., Ran], client: Redis) -> None:
    [first, second, healthy] = [erni(*ADD).out.split()[0] for _ in range(3)]
    for name in (first, second):
        failing: dict[Any, Any] = {
            "failing_since": "1780000000.000",
            "error": "the endpoint answered 500",
        }
        client.hset(f"erni:{{webhooks}}:{name}", mapping=failing)
    client.zadd(POSTPONED, {"foreign": 1.0})
    waiting = {notice(first, number=number): 1_780_000_100_000 + number for number in range(250)}
    waiting |= {notice(second): 1_780_000_400_000, notice(healthy): 1_780_000_050_000}
    client.zadd(POSTPONED, waiting)
    hooks = {one["id"]: one for one in erni("webhook", "list", "--json").document["webhooks"]}
    assert hooks[first]["next_try_at"] == 1_780_000_100.0
    assert hooks[second]["next_try_at"] == 1_780_000_400.0
    assert hooks[healthy]["next_try_at"] is None
    said = erni("webhook", "list").err
    assert said.count("next try at 2026-05-28 20:28:20Z") == 1
    assert said.count("next try at 2026-05-28 20:33:20Z") == 1
    client.delete(POSTPONED)
    assert "next try" not in erni("webhook", "list").err


def test_a_removed_one_is_gone_and_an_unknown_one_is_named(erni: Callable[..., Ran], client: Redis) -> None:
    name, _ = erni(*ADD).out.split()
    assert erni("webhook", "remove", name).code == 0
    assert client.keys("erni:{webhooks}*") == []
    for word in ("remove", "rotate", "disable", "enable"):
        ran = erni("webhook", word, name)
        assert ran.code == 1
        assert f"there is no web hook {name}: `erni webhook list` shows those there are" in ran.err
    assert "there is no web hook yet" in erni("webhook", "list").out


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("http://127.0.0.1:8000/", "--source", "urn:a"), "an address that is not public"),
        (("nonsense", "--source", "urn:a"), "needs an http(s) address"),
        (("https://example.org/", "--source", "no source"), "is no URI reference"),
        (("https://example.org/", "--source", "urn:a", "--events", "photo.lost"), "give one or more of"),
        (("https://example.org/", "--source", "urn:a", "--signature", "v9"), "invalid choice: 'v9'"),
        (("https://example.org/",), "--source"),
    ],
)
def test_a_web_hook_that_cannot_be_is_wrong_usage(
    erni: Callable[..., Ran], client: Redis, words: tuple[str, ...], sentence: str
) -> None:
    ran = erni("webhook", "add", *words)
    assert ran.code == 2
    assert sentence in ran.err
    assert "Traceback" not in ran.err
    assert client.keys("erni:{webhooks}*") == []


def test_an_address_without_tls_is_warned_about(erni: Callable[..., Ran]) -> None:
    ran = erni("webhook", "add", "http://example.org/", "--source", "urn:a")
    assert ran.code == 0
    assert "the address is not https" in ran.err


def test_status_misses_the_notifier_only_where_a_web_hook_is_on(erni: Callable[..., Ran]) -> None:
    missing = "webhook_notifier: no process runs"
    assert missing not in erni("status").out
    name, _ = erni(*ADD).out.split()
    assert missing in erni("status").out
    assert "webhook_notifier" in [agent["agent"] for agent in erni("status", "--json").document["agents"]]
    erni("webhook", "remove", name)
    assert missing not in erni("status").out
