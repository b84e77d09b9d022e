"""Read a chat completion as services write it: OpenAI's form, and what gateways and other servers make of it.

The content may be a text or a list of parts, the answer may stand in a reasoning field, usage may be null or
hold floats, an error may hide in a 200, and some gateways always stream.
"""

from __future__ import annotations

import math
from typing import Any, Final

import msgspec

from shared.vision.contract import Usage

_REASONING: Final = ("reasoning_content", "reasoning", "thinking")
"""Where vLLM and DeepSeek, OpenRouter, and Ollama put what a model thinks, and sometimes all it says."""
CUT: Final = "length"
"""The `finish_reason` of an answer that was ended at the limit of its tokens."""
_TEXT_PARTS: Final = frozenset({"text", "output_text"})
_STREAM: Final = "data:"


class Completion(msgspec.Struct, frozen=True, kw_only=True):
    """Hold what is used of a completion."""

    text: str = ""
    """The answer; empty if the model said nothing."""
    refusal: str = ""
    finish_reason: str = ""
    usage: Usage = Usage()
    error: dict[str, Any] | None = None
    """The error inside a successful answer, as the service wrote it."""


def read_completion(body: bytes) -> Completion:
    """Read the body of a 200. Raises ValueError with a reason if it is no chat completion."""
    text = body.decode("utf-8", "replace").strip()
    document = _joined(text) if text.startswith(_STREAM) else _object(text)
    if document is None:
        raise ValueError("it is no JSON object")
    choices = document.get("choices")
    error = document.get("error")
    if not isinstance(choices, list):
        if error:
            return Completion(usage=_usage(document.get("usage")), error=_as_error(error))
        raise ValueError("it has no choices")
    choice = choices[0] if choices and isinstance(choices[0], dict) else {}
    error = error or choice.get("error")
    message = choice.get("message")
    message = message if isinstance(message, dict) else {}
    content = _text(message.get("content"))
    finish_reason = _text(choice.get("finish_reason"))
    if not content and finish_reason != CUT:
        # what a model thinks is its answer only where there is no other, and where it came to an end
        content = next((found for name in _REASONING if (found := _text(message.get(name)))), "")
    return Completion(
        text=content,
        refusal=_text(message.get("refusal")),
        finish_reason=finish_reason,
        usage=_usage(document.get("usage")),
        error=_as_error(error) if error and not content else None,
    )


def _object(text: str) -> dict[str, Any] | None:
    try:
        document = msgspec.json.decode(text)
    except msgspec.DecodeError:
        return None
    return document if isinstance(document, dict) else None


def _joined(text: str) -> dict[str, Any] | None:
    """Join the chunks of a stream of server-sent events (``data: {…}``) into one completion."""
    parts: dict[str, list[str]] = {name: [] for name in ("content", "refusal", *_REASONING)}
    finish, usage, error = None, None, None
    found = False
    for line in text.splitlines():
        chunk = _object(line.removeprefix(_STREAM).strip()) if line.startswith(_STREAM) else None
        if chunk is None:
            continue
        found = True
        usage, error = chunk.get("usage") or usage, chunk.get("error") or error
        choices = chunk.get("choices")
        choice = choices[0] if isinstance(choices, list) and choices else None
        if not isinstance(choice, dict):
            continue
        finish = choice.get("finish_reason") or finish
        delta = choice.get("delta")
        for name, texts in parts.items():
            texts.append(_text(delta.get(name)) if isinstance(delta, dict) else "")
    if not found:
        return None
    message = {name: "".join(texts) for name, texts in parts.items()}
    return {
        "choices": [{"message": message, "finish_reason": finish}],
        "usage": usage,
        "error": error,
    }


def _text(content: object) -> str:
    """Return the text of a content: a text, or the text parts of a list."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        return ""
    texts = []
    for part in content:
        if isinstance(part, str):
            texts.append(part)
        elif isinstance(part, dict) and part.get("type", "text") in _TEXT_PARTS:
            texts.append(_text(part.get("text")))
    return "".join(texts)


def _usage(usage: object) -> Usage:
    """Return the tokens that the service counted; what it did not count is 0."""
    if not isinstance(usage, dict):
        return Usage()
    return Usage(
        prompt_tokens=_count(usage.get("prompt_tokens")),
        completion_tokens=_count(usage.get("completion_tokens")),
    )


def _count(number: object) -> int:
    if isinstance(number, bool) or not isinstance(number, int | float) or not math.isfinite(number):
        return 0
    return max(0, round(number))


def _as_error(error: object) -> dict[str, Any]:
    return error if isinstance(error, dict) else {"message": str(error)}
