from __future__ import annotations

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from shared.retry.retry_after import retry_after


def test_retry_after_is_read_as_seconds_and_as_date() -> None:
    assert retry_after({"Retry-After": "17"}) == 17
    later = format_datetime(datetime.now(UTC) + timedelta(seconds=90), usegmt=True)
    seconds = retry_after({"Retry-After": later})
    assert seconds is not None
    assert 85 < seconds <= 90
    past = format_datetime(datetime.now(UTC) - timedelta(seconds=90), usegmt=True)
    assert retry_after({"Retry-After": past}) == 0


@pytest.mark.parametrize("text", ["", "soon", "1;2", "Tue, 99 Foo", "nan"])
def test_an_unreadable_retry_after_is_none(text: str) -> None:
    assert retry_after({"Retry-After": text}) is None


@pytest.mark.parametrize("text", ["99999999", "inf", "Fri, 31 Dec 9999 23:59:59 GMT"])
def test_a_day_is_the_most_that_anybody_is_believed(text: str) -> None:
    assert retry_after({"Retry-After": text}) == 24 * 3600


def test_a_wait_below_nothing_is_nothing() -> None:
    assert retry_after({"Retry-After": "-5"}) == 0
