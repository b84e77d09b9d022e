"""Settings come from the environment, then `.env`, then `.erni/env`; every wrong one is named at once."""

from __future__ import annotations

import io
import math
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, get_args, get_origin
from urllib.parse import urlsplit
from urllib.request import getproxies_environment, proxy_bypass
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import msgspec
from msgspec import Meta

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


class SettingsError(ValueError):
    """One or more settings are wrong; the message lists each with what is allowed."""


class Secret(str):
    """Text that must not be printed: its repr hides it. `str.__str__` returns the value."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "'***'"


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that can be set. A field is the environment variable of that name in capitals."""

    redis_url: str = "redis://localhost:6379/0"
    redis_password: str = ""
    system_id: str = ""
    """Of the system that is meant; a command refuses to change one with another id."""
    lanes: Annotated[int, Meta(ge=1)] = 1
    session_backend: Literal["redis", "memory"] = "redis"
    session_redis_url: str = ""
    session_ttl: Annotated[int, Meta(ge=1)] = 3600
    """Seconds since the last access after which a finished session is forgotten."""
    session_max: Annotated[int, Meta(ge=1)] = 10_000
    enable_tracing: bool = True
    otlp_endpoint: str = "http://localhost:4317"
    environment: str = "development"
    metrics_port: Annotated[int, Meta(ge=0, le=65_535)] | None = None
    """None: the first free port from 9200 upward; 0: any free port; else exactly this one."""
    metrics_host: str = "127.0.0.1"
    """Address /health, /ready and /metrics listen on; 0.0.0.0 in a container, for Prometheus to get in."""
    http_port: Annotated[int, Meta(ge=0, le=65_535)] = 8085
    http_host: str = "127.0.0.1"
    """Address the gateway listens on; 0.0.0.0 in a container."""
    http_allowed_hosts: tuple[str, ...] = ()
    """Public names by which gateway and metrics are reached, as through a proxy; ``*`` for any."""
    http_rate_per_minute: Annotated[int, Meta(ge=0)] = 60_000
    """Requests a minute that each key may send to the gateway; 0: no limit."""
    jaeger_url: str = "http://localhost:16686"
    """Where people look at traces; only used to print links."""
    graph_url: str = "https://graph.microsoft.com/v1.0"
    azure_authority: str = "https://login.microsoftonline.com"
    azure_tenant_id: str = ""
    azure_client_id: str = ""
    azure_client_secret: str = ""
    azure_credential: Literal["secret", "certificate", "workload", "managed"] = "secret"
    """How the app signs in; all but ``secret`` need the extra ``[azure]``."""
    azure_certificate_path: str = ""
    """PEM or PKCS#12 file with the certificate and its key."""
    azure_certificate_password: str = ""
    sharepoint_site: str = ""
    """``hostname:/sites/Name``, or the site's full address."""
    sharepoint_library: str = "Referenzfotos"
    sharepoint_time_zone: str = "Europe/Zurich"
    """The site's zone (IANA), as in its regional settings: date columns count their days in it."""
    vision_backend: Literal["local", "openai"] = "local"
    vision_url: str = "https://api.openai.com/v1"
    vision_model: str = ""
    vision_api_key: str = ""
    vision_budget_day: Annotated[float, Meta(ge=0)] = 0.0
    """Money (in the price list's currency) that may be spent per day (UTC); 0: no limit."""
    vision_budget_session: Annotated[float, Meta(ge=0)] = 0.0
    """Money that may be spent on the photos of one session; 0: no limit."""
    vision_price_input: Annotated[float, Meta(ge=0)] = 0.0
    """The model's price list: money per million tokens read, the picture's among them."""
    vision_price_output: Annotated[float, Meta(ge=0)] = 0.0
    """Money per million tokens written."""
    vision_currency: str = "USD"
    """The price list's currency, as reports print it."""
    vision_api_version: str = ""
    """Azure OpenAI's ``api-version``: VISION_URL is then the resource, VISION_MODEL a deployment."""
    vision_max_tokens: Annotated[int, Meta(ge=16)] = 1200
    """Tokens an answer may have; one that was cut off is asked for once more with three times as many."""
    vision_tokens_field: Literal["max_completion_tokens", "max_tokens"] = "max_completion_tokens"
    """What the service calls that limit; older servers and Ollama say ``max_tokens``."""
    vision_temperature: float | None = 0.0
    """``null``: not sent, which reasoning models want."""
    vision_detail: Literal["low", "high", "auto"] = "high"
    vision_schema_form: Literal["nested", "flat", "none"] = "nested"
    """How the answer's JSON schema is sent: OpenAI's way, llama.cpp's, or not at all."""
    vision_preview_side: Annotated[int, Meta(ge=64)] = 1024
    """Pixels of the long side of the preview, which is what the model sees."""
    vision_faces: bool = False
    """Look for a face in each preview, on this machine, as a hint for columns about people."""
    photo_store_url: str = "./.erni/store"
    store_retention_days: Annotated[int, Meta(ge=0)] = 0
    """Days after which photos, answers and reports are removed from the store; 0: kept."""
    source_hosts: tuple[str, ...] = ()
    """Hosts that `http(s):` sources may be on, comma-separated; ``*`` allows every public host."""
    source_roots: tuple[str, ...] = ()
    """Folders below which `file:` sources may be, separated by commas."""
    webhook_hosts: tuple[str, ...] = ()
    """Hosts of web hooks that may have a private address, comma-separated, as in SOURCE_HOSTS."""
    webhook_timeout: Annotated[float, Meta(ge=0.1)] = 15.0
    """Seconds that a web hook may take to answer."""
    max_photo_bytes: Annotated[int, Meta(ge=1)] = 15_000_000
    max_event_bytes: Annotated[int, Meta(ge=1024)] = 262_144
    max_backlog: Annotated[int, Meta(ge=1)] = 100_000
    """Entries in photo.submitted above which publishing is refused."""
    concurrency: Annotated[int, Meta(ge=1)] = 8
    lease_seconds: Annotated[float, Meta(ge=0.5)] = 15.0
    handle_timeout: Annotated[float, Meta(ge=0.1)] = 120.0
    max_deliveries: Annotated[int, Meta(ge=1)] = 5
    grace_seconds: Annotated[float, Meta(ge=0)] = 30.0
    photo_record_hours: Annotated[float, Meta(ge=0)] = 48.0
    archive_days: Annotated[int, Meta(ge=0)] = 90
    """Days for which a discarded dead letter can be restored; 0: a discard deletes it."""
    allow_volatile_redis: bool = False
    wait_replicas: Annotated[int, Meta(ge=0, le=9)] = 0
    """Replicas that must have an event, or a hand-off, before it counts as acknowledged."""
    use_proxy: bool = True
    """Ask SharePoint, its sign-in, the vision service and the collector through the environment's proxy."""
    cache_dir: str = "~/.cache/erni"
    file_name_template: str = "Erni_Referenzfoto_{date}_{hash12}.{ext}"
    schema_ttl: Annotated[float, Meta(ge=0)] = 300.0
    """Seconds after which a library's columns are read again."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["json", "console", "auto"] = "auto"


_SECRETS = frozenset(
    {"redis_password", "azure_client_secret", "azure_certificate_password", "vision_api_key"}
)
_BOOLEANS = {
    "1": True,
    "true": True,
    "yes": True,
    "on": True,
    "0": False,
    "false": False,
    "no": False,
    "off": False,
}


def _parse(field: msgspec.structs.FieldInfo, text: str) -> object:
    """One value from its text. Raises ValueError with what is allowed."""
    if field.type is bool:
        if text.lower() not in _BOOLEANS:
            raise ValueError("expected one of 1, 0, true, false, yes, no, on, off")
        return _BOOLEANS[text.lower()]
    if field.type == tuple[str, ...]:
        return tuple(part.strip() for part in text.split(",") if part.strip())
    if get_origin(field.type) is Literal:
        return _one_of(get_args(field.type), text)
    value = _converted(field, text)
    return Secret(value) if field.name in _SECRETS else value


def _one_of(allowed: Sequence[str], text: str) -> str:
    if text.lower() not in allowed:
        raise ValueError(f"expected one of {', '.join(allowed)}")
    return text.lower()


def _converted(field: msgspec.structs.FieldInfo, text: str) -> object:
    try:
        value: object = msgspec.convert(text, field.type, strict=False)
    except msgspec.ValidationError as error:
        raise ValueError(_expected(str(error), text)) from None
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError("expected a number")
    return value


def _expected(refusal: str, text: str) -> str:
    """What is allowed, in our words: msgspec says "Expected `int` >= 1"."""
    bound = re.search(r"([<>])= (\S+)$", refusal)
    if bound and text.lower() != "nan":
        return f"expected at {'least' if bound[1] == '>' else 'most'} {bound[2]}"
    return f"expected a {'whole ' if '`int' in refusal else ''}number"


def load(environ: Mapping[str, str] | None = None, *, folder: Path | None = None) -> Settings:
    """Read the settings. Raises SettingsError naming every wrong value.

    An empty variable counts as not set. `environ` defaults to the process's environment; files are looked
    for in `folder` (default: the current one; `.erni` also above it). What the environment says wins over
    `.env`, which wins over `.erni/env` (the addresses of a running `erni up`).
    """
    merged = merged_environment(environ, folder=folder)
    values: dict[str, object] = {}
    wrong: list[str] = []
    for field in msgspec.structs.fields(Settings):
        name = field.name.upper()
        text = merged.get(name, "").strip()
        if not text:
            continue
        try:
            values[field.name] = _parse(field, text)
        except ValueError as error:
            shown = "***" if field.name in _SECRETS else repr(text[:80])
            wrong.append(f"{name}={shown}: {error}")
    if "redis_url" not in values and "session_redis_url" in values:
        values["redis_url"] = values["session_redis_url"]
    wrong += _contradictions(values)
    if wrong:
        raise SettingsError("these settings cannot be used:\n  " + "\n  ".join(wrong))
    return Settings(**values)  # type: ignore[arg-type]  # each was converted to its field's type above


def proxy_for(settings: Settings, url: str) -> str | None:
    """Return the proxy for a request to a service, from HTTP_PROXY, HTTPS_PROXY and NO_PROXY; None: direct.

    Addresses of this machine are always asked directly. The photos' sources take no proxy at all, because
    through one an address could not be checked to be public.
    """
    parts = urlsplit(url)
    host = parts.hostname or ""
    if not settings.use_proxy or host in ("localhost", "::1") or host.startswith("127."):
        return None
    if proxy_bypass(f"{host}:{parts.port}" if parts.port else host):
        return None
    proxies = getproxies_environment()
    return proxies.get(parts.scheme) or proxies.get("all")


def merged_environment(
    environ: Mapping[str, str] | None = None, *, folder: Path | None = None, running: bool = True
) -> dict[str, str]:
    """The environment over `.env` over `.erni/env`. Raises SettingsError for a line that cannot be read.

    `running` false: without `.erni/env`, for who starts a system and must not join the one that runs.
    """
    merged: dict[str, str] = {}
    for origin, values in origins(environ, folder=folder):
        if running or origin.name != "env":
            merged.update(values)
    return merged


def origins(
    environ: Mapping[str, str] | None = None, *, folder: Path | None = None
) -> list[tuple[Path, dict[str, str]]]:
    """Where settings come from, the weakest first: `.erni/env`, `.env`, and the environment (`Path()`).

    Raises SettingsError for a line that cannot be read.
    """
    from dotenv import dotenv_values

    base = folder or Path.cwd()
    erni = base / ".erni" if folder else erni_folder(base)
    found: list[tuple[Path, dict[str, str]]] = []
    for path in ([erni / "env"] if erni else []) + [base / ".env"]:
        if path.is_file():
            text = _readable(path)
            # a password may have a $ in it
            values = dotenv_values(stream=io.StringIO(text), interpolate=False)
            found.append((path, {name: value for name, value in values.items() if value}))
    given = os.environ if environ is None else environ
    return [*found, (Path(), {name: value for name, value in given.items() if value})]


def cache_folder(settings: Settings) -> Path:
    """Return the folder of CACHE_DIR. Raises SettingsError where ``~`` means nothing."""
    try:
        return Path(settings.cache_dir).expanduser()
    except RuntimeError as error:  # pathlib's word for it
        raise SettingsError(
            f"CACHE_DIR={settings.cache_dir}: this user has no home folder; name a folder with its whole path"
        ) from error


def erni_folder(start: Path) -> Path | None:
    """The `.erni` of a folder, or of the nearest one above it, as git finds its own.

    Above, only one that belongs to this user: others could lead commands to a Redis of theirs.
    """
    for folder in (start, *start.parents):
        erni = folder / ".erni"
        if erni.is_dir() and (folder == start or erni.stat().st_uid == os.getuid()):
            return erni
    return None


def _readable(path: Path) -> str:
    """The text of an environment file, each line of which can be read. What stands there may be secret."""
    from dotenv.parser import parse_stream

    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise SettingsError(f"{path}, line {line}: not UTF-8; write it as text, NAME=value") from None
    for binding in parse_stream(io.StringIO(text)):
        if binding.error:
            source = binding.original.string
            # empty lines before it are counted as its own
            line = binding.original.line + source[: -len(source.lstrip()) or None].count("\n")
            raise SettingsError(
                f"{path}, line {line}: cannot be read; write NAME=value, a value with spaces"
                " in quotes, or # before a remark"
            )
    return text


def _contradictions(values: Mapping[str, object]) -> list[str]:
    """Values that are right alone and wrong together."""
    # loads redis-py, which `--help` does not need
    from events import redis_address

    wrong: list[str] = []
    redis_url, session_url = values.get("redis_url"), values.get("session_redis_url")
    if session_url and redis_url != session_url:
        wrong.append(
            "SESSION_REDIS_URL must be the same server as REDIS_URL: session counters move in the hand-off"
        )
    zone = str(values.get("sharepoint_time_zone", "UTC"))
    try:
        ZoneInfo(zone)
    except (ZoneInfoNotFoundError, ValueError):
        wrong.append(f"SHAREPOINT_TIME_ZONE={zone[:80]!r}: expected an IANA zone such as Europe/Zurich")
    for name in sorted(name for name in values if name.endswith("_url")):
        address = str(values[name])
        try:
            if "redis" in name:
                redis_address.read(address)
            else:
                _ = urlsplit(address).port
        except ValueError as error:
            # what urllib says may quote a part of a password
            own = "redis" in name
            sentence = str(error) if own else "expected an address with a host, and a port from 0 to 65535"
            wrong.append(f"{name.upper()}: {sentence}")
    prices = (values.get("vision_price_input"), values.get("vision_price_output"))
    if (values.get("vision_budget_day") or values.get("vision_budget_session")) and not any(prices):
        wrong.append(
            "VISION_BUDGET_DAY and VISION_BUDGET_SESSION count money: set VISION_PRICE_INPUT and"
            " VISION_PRICE_OUTPUT too, in money per million tokens"
        )
    return wrong
