"""What can be set, and what is said of a value that cannot be."""

from __future__ import annotations

import pytest

from shared.settings import SettingsError, load


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        ("VISION_BACKEND", "gpt", "expected one of local, openai"),
        ("CONCURRENCY", "many", "expected a whole number"),
        ("CONCURRENCY", "2.5", "expected a whole number"),
        ("CONCURRENCY", "0", "expected at least 1"),
        ("LEASE_SECONDS", "soon", "expected a number"),
        ("LEASE_SECONDS", "nan", "expected a number"),
        ("GRACE_SECONDS", "inf", "expected a number"),
        ("VISION_TEMPERATURE", "warm", "expected a number"),
        ("METRICS_PORT", "-1", "expected at least 0"),
        ("METRICS_PORT", "99999", "expected at most 65535"),
        ("HTTP_PORT", "99999", "expected at most 65535"),
        ("ENABLE_TRACING", "maybe", "expected one of 1, 0, true, false, yes, no, on, off"),
    ],
)
def test_a_wrong_value_is_named_with_what_is_allowed(name: str, value: str, allowed: str) -> None:
    with pytest.raises(SettingsError) as raised:
        load({name: value})
    assert str(raised.value) == f"these settings cannot be used:\n  {name}='{value}': {allowed}"


def test_all_wrong_values_are_named_at_once() -> None:
    with pytest.raises(SettingsError) as raised:
        load({"LANES": "0", "LOG_LEVEL": "loud", "REDIS_URL": "http://x"})
    assert [line.split("=")[0].split(":")[0] for line in str(raised.value).splitlines()[1:]] == [
        "  LANES",
        "  LOG_LEVEL",
        "  REDIS_URL",
    ]


def test_words_may_be_written_in_capitals() -> None:
    assert load({"LOG_LEVEL": "INFO"}).log_level == "info"


def test_what_may_be_left_open_can_be_set_to_null() -> None:
    found = load({"VISION_TEMPERATURE": "null", "METRICS_PORT": "null"})
    assert (found.vision_temperature, found.metrics_port) == (None, None)
