"""Durations and times as people type and read them."""

from __future__ import annotations

import pytest

from console import durations


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("30s", 30),
        ("10m", 600),
        ("2h", 7200),
        ("1d", 86_400),
        ("1h30m", 5400),
        ("1.5h", 5400),
        ("500ms", 0.5),
    ],
)
def test_a_duration_is_a_number_with_a_unit(text: str, seconds: float) -> None:
    assert durations.seconds(text) == seconds


@pytest.mark.parametrize("text", ["", "10", "m", "10 minutes", "-5m", "5x", "1e3s", "10m\n\nDROP"])
def test_anything_else_is_refused_with_what_is_allowed(text: str) -> None:
    with pytest.raises(ValueError, match="is no duration: give a number with a unit"):
        durations.seconds(text)


def test_a_duration_has_an_end_and_a_span_has_a_length() -> None:
    for wrong in ("365001d", "9" * 400 + "s"):
        with pytest.raises(ValueError, match="is too long: at most 365000d"):
            durations.seconds(wrong)
    assert durations.span("1s") == 1
    with pytest.raises(ValueError, match="'0s' is no time at all: give a number with a unit"):
        durations.span("0s")


def test_a_moment_is_so_long_ago_or_a_time_that_is_utc_unless_it_says_otherwise() -> None:
    assert durations.moment("10m", 1000.0) == 400.0
    assert durations.moment("1970-01-01T01:00", 0) == 3600.0
    assert durations.moment("1970-01-01T01:00+01:00", 0) == 0.0
    assert durations.moment("1970-01-02", 0) == 86_400.0
    with pytest.raises(ValueError, match="neither a duration"):
        durations.moment("yesterday", 0)


def test_a_rate_is_per_second_unless_it_says_otherwise() -> None:
    assert durations.per_second("5/s") == 5
    assert durations.per_second("5") == 5
    assert durations.per_second("120/m") == 2
    for wrong in ("0", "5/x", "-1/s", ""):
        with pytest.raises(ValueError, match="is no rate"):
            durations.per_second(wrong)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "-"),
        (-3, "0ms"),
        (0.0404, "40ms"),
        (0.9999, "1.0s"),
        (1.24, "1.2s"),
        (9.96, "10s"),
        (59.6, "1m00"),
        (200, "3m20"),
        (7500, "2h05"),
        (4 * 86_400, "4d"),
    ],
)
def test_a_duration_is_shown_in_a_few_characters(seconds: float | None, text: str) -> None:
    assert durations.short(seconds) == text


def test_a_point_in_time_is_shown_in_utc() -> None:
    assert durations.clock(0.0) == "-"
    assert durations.clock(1_778_581_805) == "2026-05-12 10:30:05Z"
