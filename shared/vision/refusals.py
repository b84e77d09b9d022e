"""What a chat-completions service answers when it refuses, as the exception that says what to do about it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

import msgspec

from shared.retry.errors import HttpStatusError, PermanentError, PostponeError, TransientError
from shared.retry.retry_after import bounded, retry_after

if TYPE_CHECKING:
    from collections.abc import Mapping

_ADVICE: Final[Mapping[int, str]] = {
    401: "check VISION_API_KEY",
    403: "the key may not use this model: check VISION_API_KEY and VISION_MODEL",
    404: "check VISION_URL and VISION_MODEL",
    413: "lower VISION_PREVIEW_SIDE",
    429: "it is asked too often",
}
# Timeout and conflict: OpenAI's own clients try these again as well.
_AGAIN: Final = frozenset({408, 409})
# Somebody has to pay a bill first: look every hour. The photo has done nothing wrong.
_UNPAID_WAIT: Final = 3600.0
_MAX_SAID: Final = 300
_RESETS: Final = ("requests", "tokens")
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")
_UNITS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


class _Body(msgspec.Struct, frozen=True, kw_only=True):
    """The parts of an error body that are acted on or told."""

    message: str = ""
    kind: str = ""
    code: str = ""
    param: str = ""


def refusal(status: int, headers: Mapping[str, str], body: bytes) -> Exception:
    """The exception for an answer that is no success.

    ``x-should-retry`` decides over the status. Of several waits the most precise counts:
    ``retry-after-ms``, then ``Retry-After`` in seconds or as a date, then the reset of the exhausted limit.
    """
    said = _read(body)
    sentence = f"asking the vision model: the service answered {status}"
    if said.code or said.kind:
        sentence += f" {said.code or said.kind}"
    # what is said about a key may quote from it
    if said.message and status not in (401, 403):
        sentence += f" ({said.message})"
    advice = _ADVICE.get(status)
    if "insufficient_quota" in (said.code, said.kind):
        return PostponeError(
            f"{sentence}; the account's quota is used up: raise it or pay the bill, the photo waits",
            _UNPAID_WAIT,
        )
    if status == 400 and said.code == "content_filter":
        return PermanentError(
            f"{sentence}; the service's content filter does not take this photo or its hints"
        )
    if status == 400 and said.param.startswith("response_format"):
        advice = "the service does not take the schema of this library: try VISION_SCHEMA_FORM=flat or none"
    elif status == 400 and said.param in ("temperature", "max_tokens", "max_completion_tokens"):
        advice = "see VISION_TEMPERATURE and VISION_TOKENS_FIELD"
    if advice:
        sentence += f"; {advice}"
    wanted = headers.get("x-should-retry", "").lower()
    if wanted == "false":
        return PermanentError(f"{sentence}; it asks not to be tried again")
    if status == 429 or status >= 500 or (wanted != "true" and status not in _AGAIN):
        return HttpStatusError(
            sentence, status=status, retry_after=wait_of(headers), code=said.code or said.kind or None
        )
    return TransientError(sentence)


def wait_of(headers: Mapping[str, str]) -> float | None:
    """Seconds the service wants us to wait; None if it does not say."""
    try:
        return bounded(float(headers.get("retry-after-ms", "")) / 1000)
    except ValueError:
        pass
    seconds = retry_after(headers)
    if seconds is not None:
        return seconds
    waits = [
        wait
        for limit in _RESETS
        if headers.get(f"x-ratelimit-remaining-{limit}", "").strip() == "0"
        and (wait := _duration(headers.get(f"x-ratelimit-reset-{limit}", ""))) is not None
    ]
    return bounded(max(waits)) if waits else None


def _duration(text: str) -> float | None:
    """Seconds in ``1s``, ``6m0s`` or ``20ms``."""
    parts = _DURATION.findall(text.strip())
    if not parts or "".join(number + unit for number, unit in parts) != text.strip():
        return None
    return sum(float(number) * _UNITS[unit] for number, unit in parts)


def _read(body: bytes) -> _Body:
    """OpenAI nests it under ``error``, vLLM does not, Ollama says ``error`` in one text."""
    try:
        document = msgspec.json.decode(body)
    except msgspec.DecodeError:
        return _Body()
    error = document.get("error", document) if isinstance(document, dict) else None
    if isinstance(error, str):
        return _Body(message=_shortened(error))
    if not isinstance(error, dict):
        return _Body()
    text = {name: value for name, value in error.items() if isinstance(value, str)}
    return _Body(
        message=_shortened(text.get("message", "")),
        kind=text.get("type", "")[:60],
        code=text.get("code", "")[:60],
        param=text.get("param", "")[:60],
    )


def _shortened(message: str) -> str:
    """One line, without the picture that some services quote back, and without queries of addresses."""
    line = re.sub(r"data:image/[^\s\"']*", "…", " ".join(message.split()))
    line = re.sub(r"(https?://[^\s?#\"']*)[?#][^\s\"']*", r"\1", line)
    return line if len(line) <= _MAX_SAID else line[:_MAX_SAID] + "…"
