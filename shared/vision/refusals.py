"""Turn the error answers of a chat-completions service into exceptions that name what to do."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

import msgspec

from shared.retry.errors import (
    OF_A_TARGET,
    HttpStatusError,
    PermanentError,
    PostponeError,
    SetupError,
    TransientError,
)
from shared.retry.retry_after import bounded, retry_after

if TYPE_CHECKING:
    from collections.abc import Mapping

_WAIT: Final = "the service has a trouble of its own: wait, photos go on by themselves"
_ADVICE: Final[Mapping[int, str]] = {
    401: "check VISION_API_KEY, and start vision_analyzer again",
    403: "the key may not use this model: check VISION_API_KEY and VISION_MODEL, and start vision_analyzer"
    " again",
    404: "check VISION_URL and VISION_MODEL, and start vision_analyzer again",
    413: "lower VISION_PREVIEW_SIDE, and start vision_analyzer again",
    429: "it is asked too often: wait",
    500: _WAIT,
    502: _WAIT,
    503: _WAIT,
    504: _WAIT,
}
# Bad request, and what FastAPI answers instead of it.
_REFUSED: Final = frozenset({400, 422})
_UNPAID: Final = 402
"""OpenRouter and DeepSeek where OpenAI answers 429 ``insufficient_quota``."""
_TOO_LARGE: Final = 413
_INSIDE: Final[Mapping[str, int]] = {
    "content_filter": 400,
    "invalid_request_error": 400,
    "insufficient_quota": 429,
    "rate_limit_exceeded": 429,
}
"""The status of an error inside a 200 that names itself in words."""
_PARAMETER: Final = re.compile(
    r"\b(?:max_completion_tokens|max_tokens|temperature|response_format|json_schema|response_schema"
    r"|additionalProperties|grammar|detail)\b"
)
_ALIASES: Final[Mapping[str, str]] = dict.fromkeys(
    ("json_schema", "response_schema", "additionalProperties", "grammar"), "response_format"
)
"""Gemini and llama.cpp use words of their own for the schema."""
_PICTURE: Final = re.compile(r"image|picture|photo|prompt|content|safety|policy|block", re.IGNORECASE)
"""A 400 with one of these words may be about what this photo shows or how its preview is made."""
_CONTEXT: Final = re.compile(r"context[ _](?:length|size|window)", re.IGNORECASE)
_NO_ROOM: Final = (
    "the request is longer than the model's context: lower VISION_PREVIEW_SIDE or VISION_MAX_TOKENS, or raise"
    " the context at the service"
)
_TOO_MANY: Final = re.compile(r"too large|too high|at most|maximum|exceed|less than", re.IGNORECASE)
# Azure through a gateway (LiteLLM) has no code of its own any more.
_FILTERED: Final = re.compile(
    r"ResponsibleAIPolicyViolation|ContentPolicyViolation|content management policy"
)
_BLIND: Final = re.compile(
    r"required for image input|does not (?:support|accept) (?:images?\b|image input|vision)"
    r"|not a (?:vision|multimodal) model|image input is not supported|at most 0 images?"
    r"|unknown variant `?image_url|image_url is only supported by",
    re.IGNORECASE,
)
"""Ollama (as a 500), OpenAI, vLLM, llama.cpp, OpenRouter and DeepSeek about a model that sees nothing."""
# Timeout and conflict: OpenAI's own clients try these again as well.
_AGAIN: Final = frozenset({408, 409})
# Somebody has to pay a bill first, so look every hour. It is not the photo's fault.
_UNPAID_WAIT: Final = 3600.0
_MAX_SAID: Final = 300
_RESETS: Final = ("requests", "tokens")
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")
_UNITS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


class SchemaRefusedError(SetupError):
    """Report that the service does not take the schema of a library: every photo for it is refused."""


class _Body(msgspec.Struct, frozen=True, kw_only=True):
    """Hold the parts of an error body that decide or are shown."""

    message: str = ""
    kind: str = ""
    code: str = ""
    parameter: str = ""
    """The request's parameter that the service names, whether in a field of its own or in its sentence."""
    filtered: bool = False
    """Whether the content filter refused the photo or its hints."""
    blind: bool = False
    """Whether the model takes no pictures."""
    of_picture: bool = False
    """Whether it speaks of a picture, or of what it shows."""
    no_room: bool = False
    """Whether the request is longer than the model's context."""


def refusal(status: int, headers: Mapping[str, str], body: bytes) -> Exception:
    """Return the exception for an answer that is no success.

    ``x-should-retry`` wins over every status but 401. Of several waits the most precise counts:
    ``retry-after-ms``, then ``Retry-After`` in seconds or as a date, then the reset of the exhausted limit.
    """
    found = _read(body)
    sentence = _sentence_of(status, found)
    if "insufficient_quota" in (found.code, found.kind) or status == _UNPAID:
        return PostponeError(
            f"{sentence}; the account's quota is used up: raise it or pay the bill, the photo waits",
            _UNPAID_WAIT,
        )
    if found.filtered and status in _REFUSED:
        return PermanentError(
            f"{sentence}; the service's content filter does not take this photo or its hints"
        )
    if found.blind:
        return SetupError(f"{sentence}; the model takes no pictures: name one that does in VISION_MODEL")
    if advice := _advice(status, found):
        sentence += f"; {advice}"
    if status == 401:
        # it concerns every photo alike and is put right outside: the photos wait behind the breaker
        return TransientError(sentence)
    wanted = headers.get("x-should-retry", "").lower()
    if wanted == "false":
        return _final(f"{sentence}; it asks not to be tried again", status, found)
    passes = status == 429 or status >= 500
    if status in _AGAIN or (wanted == "true" and not passes):
        return TransientError(sentence)
    if passes or status in OF_A_TARGET or _may_be_the_photo(status, found):
        return HttpStatusError(
            sentence, status=status, retry_after=wait_of(headers), code=found.code or found.kind or None
        )
    return _final(sentence, status, found)


def _sentence_of(status: int, found: _Body) -> str:
    """Return what the service answered, in its own words."""
    sentence = f"asking the vision model: the service answered {status}"
    if found.code or found.kind:
        sentence += f" {found.code or found.kind}"
    # what a service writes about a key may quote from it
    return f"{sentence} ({found.message})" if found.message and status not in (401, 403) else sentence


def _advice(status: int, found: _Body) -> str | None:
    """Return what to do about it; None if we do not know."""
    if 300 <= status < 400:
        # a redirect is not followed: it would send the key to another address
        return "check VISION_URL: it leads to another address"
    return (_setting(found) if status in _REFUSED else None) or _ADVICE.get(status)


def _final(sentence: str, status: int, found: _Body) -> PermanentError:
    """Return the error for a refusal that no other attempt changes. Its status stays readable."""
    about_all = 300 <= status < 500 and status != 429 and status not in OF_A_TARGET
    error = PermanentError(sentence)
    if about_all and not _may_be_the_photo(status, found):
        error = (SchemaRefusedError if found.parameter == "response_format" else SetupError)(sentence)
    error.__cause__ = HttpStatusError(sentence, status=status)
    return error


def _may_be_the_photo(status: int, found: _Body) -> bool:
    """Return whether a refusal may be about this photo. A refused setting, model or address is about all."""
    if status == _TOO_LARGE:
        return True
    return status in _REFUSED and _setting(found) is None and found.of_picture


def refusal_inside(headers: Mapping[str, str], error: Mapping[str, Any]) -> Exception:
    """Return the exception for an error that a gateway sends inside a 200, with the status in its code."""
    code = str(error.get("code", ""))
    known = _INSIDE.get(code) or _INSIDE.get(str(error.get("type", "")))
    status = int(code) if re.fullmatch(r"[45]\d\d", code) else known or 502
    return refusal(status, headers, msgspec.json.encode({"error": error}))


def _setting(found: _Body) -> str | None:
    """Return which setting changes what the service names; None if it names nothing that we set."""
    if found.no_room:
        return _NO_ROOM
    match found.parameter:
        case "max_tokens" | "max_completion_tokens" if _TOO_MANY.search(found.message):
            return "lower VISION_MAX_TOKENS"
        case "max_tokens":
            return "set VISION_TOKENS_FIELD=max_completion_tokens"
        case "max_completion_tokens":
            return "set VISION_TOKENS_FIELD=max_tokens"
        case "temperature":
            return "set VISION_TEMPERATURE=null"
        case "response_format":
            return "the service does not take the schema of this library: set VISION_SCHEMA_FORM=flat or none"
        case "detail":
            return "set VISION_DETAIL=auto"
        case _:
            return None


def wait_of(headers: Mapping[str, str]) -> float | None:
    """Return the seconds that the service asks us to wait; None if it asks for none."""
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
    """Return the seconds in ``1s``, ``6m0s`` or ``20ms``."""
    parts = _DURATION.findall(text.strip())
    if not parts or "".join(number + unit for number, unit in parts) != text.strip():
        return None
    return sum(float(number) * _UNITS[unit] for number, unit in parts)


def _read(body: bytes) -> _Body:
    """Read an error body. OpenAI nests it under ``error``, vLLM does not, Ollama writes one text.

    Mistral and FastAPI list what is wrong under ``detail``, each with the way to the parameter.
    """
    try:
        document = msgspec.json.decode(body)
    except msgspec.DecodeError:
        return _Body()
    error = document.get("error", document) if isinstance(document, dict) else None
    if isinstance(error, str):
        error = {"message": error}
    if not isinstance(error, dict):
        return _Body()
    message, path = _sentence(error.get("message", error.get("detail")))
    code = error.get("code")
    whole = body.decode("utf-8", "replace")
    return _Body(
        message=_shortened(message),
        kind=_word(error.get("type")),
        code=_word(code) if isinstance(code, str) and not code.isdigit() else "",
        parameter=_parameter(f"{_word(error.get('param'))} {path}") or _parameter(message),
        blind=bool(_BLIND.search(message)),
        of_picture=bool(_PICTURE.search(f"{message} {code} {_word(error.get('param'))}")),
        no_room=bool(_CONTEXT.search(f"{message} {code} {error.get('type')}")),
        filtered=code == "content_filter" or bool(_FILTERED.search(whole)),
    )


def _sentence(message: object) -> tuple[str, str]:
    """Return the message in words, and the path to the parameter where the service lists it apart."""
    if isinstance(message, str):
        return message, ""
    if isinstance(message, dict):
        return _sentence(message.get("detail", message.get("message")))
    if not isinstance(message, list):
        return "", ""
    sentences, paths = [], []
    for one in message:
        if not isinstance(one, dict):
            continue
        where = one.get("loc")
        path = ".".join(str(step) for step in where if step != "body") if isinstance(where, list) else ""
        sentences.append(f"{path}: {one.get('msg', '')}" if path else str(one.get("msg", "")))
        paths.append(path)
    return "; ".join(sentences), " ".join(paths)


def _parameter(text: str) -> str:
    """Return the first of the parameters we send that stands in a text."""
    found = _PARAMETER.search(text)
    return _ALIASES.get(found[0], found[0]) if found else ""


def _word(value: object) -> str:
    return value[:60] if isinstance(value, str) else ""


def _shortened(message: str) -> str:
    """Return one line, without the picture that some services quote, and without queries of addresses."""
    line = re.sub(r"data:image/[^\s\"']*", "…", " ".join(message.split()))
    line = re.sub(r"(https?://[^\s?#\"']*)[?#][^\s\"']*", r"\1", line)
    return line if len(line) <= _MAX_SAID else line[:_MAX_SAID] + "…"
