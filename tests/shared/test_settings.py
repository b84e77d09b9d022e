"""What can be set, and what is said of a value that cannot be."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import pytest

from shared.settings import Settings, SettingsError, load

if TYPE_CHECKING:
    from pathlib import Path


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


def test_the_bounds_stand_beside_the_fields() -> None:
    """So that one place says them: the page of settings, an editor and the refusal read the same."""
    fields = {field.name: field for field in msgspec.structs.fields(Settings)}
    bounds = msgspec.json.schema(Settings)["$defs"]["Settings"]["properties"]
    assert bounds["vision_preview_side"]["minimum"] == 64
    assert bounds["http_port"]["maximum"] == 65_535
    numbers = [name for name, field in fields.items() if isinstance(field.default, int | float)]
    for name in numbers:
        if type(fields[name].default) is not bool and name != "vision_temperature":
            assert "minimum" in bounds[name], f"{name} has no bound"


def test_words_may_be_written_in_capitals() -> None:
    assert load({"LOG_LEVEL": "INFO"}).log_level == "info"


def test_what_may_be_left_open_can_be_set_to_null() -> None:
    found = load({"VISION_TEMPERATURE": "null", "METRICS_PORT": "null"})
    assert (found.vision_temperature, found.metrics_port) == (None, None)


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (b"LANES=1\nthis is no setting\n", 2),
        (b'LANES=1\n\nREDIS_PASSWORD="geheim\n', 3),
        (b"LANES=1\nENVIRONMENT=\xff\xfe\n", 2),
    ],
)
def test_a_line_of_env_that_cannot_be_read_is_named(tmp_path: Path, content: bytes, line: int) -> None:
    (tmp_path / ".env").write_bytes(content)
    with pytest.raises(SettingsError, match=rf"\.env, line {line}: .* NAME=value") as raised:
        load({}, folder=tmp_path)
    assert "geheim" not in str(raised.value)


def test_a_database_of_redis_is_a_number() -> None:
    with pytest.raises(SettingsError, match="REDIS_URL: expected a number behind the host"):
        load({"REDIS_URL": "redis://localhost:6379/erni"})
    for url in ("redis://localhost", "redis://localhost/", "rediss://:a@localhost/15"):
        assert load({"REDIS_URL": url}).redis_url == url


@pytest.mark.parametrize("port", ["99999", "many"])
def test_an_address_with_a_port_that_is_none_is_named(port: str) -> None:
    with pytest.raises(SettingsError) as raised:
        load({"REDIS_URL": f"redis://:geheim@localhost:{port}", "GRAPH_URL": f"http://localhost:{port}"})
    for name in ("REDIS_URL", "GRAPH_URL"):
        assert f"{name}: expected an address with a host, and a port from 0 to 65535" in str(raised.value)
    assert "geheim" not in str(raised.value)
