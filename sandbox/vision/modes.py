"""Answer as real services and models were seen to: right in substance, and in a form of their own.

Each mode is a fault that can be ordered by its name. The bodies are those that the services send: Mistral,
vLLM, OpenAI, Azure, LiteLLM, OpenRouter and Ollama.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

JsonObject: TypeAlias = dict[str, Any]

_FILTERED: Final = (
    "The response was filtered due to the prompt triggering Azure OpenAI's content management policy."
)
_EXTRA: Final = "Extra inputs are not permitted"


def _fields(content: JsonObject, changed: Callable[[JsonObject], JsonObject]) -> str:
    """Return the answer with every field's value and confidence changed."""
    return json.dumps(
        {key: changed(value) if isinstance(value, dict) else value for key, value in content.items()},
        ensure_ascii=False,
    )


def _in_words(field: JsonObject) -> JsonObject:
    value = field["value"]
    if isinstance(value, bool):
        return field | {"value": "Ja" if value else "Nein"}
    if isinstance(value, int | float):
        return field | {"value": f"{value:g}".replace(".", ",")}
    return field


_TEXTS: Final[Mapping[str, Callable[[JsonObject, str], str]]] = {
    "think": lambda _, text: f"<think>\nIch fülle nun {{die Felder}}.\n</think>\n\n{text}",
    "fence": lambda _, text: f"```json\n{text}\n```",
    "fence_prefix": lambda _, text: f"Hier ist das JSON:\n\n```json\n{text}\n```\n\nLass mich wissen.",
    "string_conf": lambda content, _: _fields(content, lambda field: field | {"confidence": "0.9"}),
    "percent_conf": lambda content, _: _fields(content, lambda field: field | {"confidence": 90}),
    "string_bool_num": lambda content, _: _fields(content, _in_words),
    "prose": lambda _content, _text: "Auf dem Foto ist leider nichts zu erkennen.",
    "empty": lambda _content, _text: "",
}
"""Modes that change the text of the answer."""

_MESSAGES: Final[Mapping[str, Callable[[str], JsonObject]]] = {
    "parts": lambda text: {"content": [{"type": "text", "text": text}]},
    "reasoning_only": lambda text: {"content": "", "reasoning_content": text},
}
"""Modes that put the text elsewhere in the message."""

_USAGES: Final[Mapping[str, object]] = {
    "null_usage": {"prompt_tokens": None, "completion_tokens": None},
    "no_usage": None,
    "float_usage": {"prompt_tokens": 10.0, "completion_tokens": 5.0},
}

_BODIES: Final[Mapping[str, tuple[int, JsonObject]]] = {
    "openrouter200": (
        200,
        {
            "id": None,
            "choices": None,
            "usage": None,
            "error": {"message": "Provider returned error", "code": 429, "metadata": {}},
        },
    ),
    "choices_empty": (200, {"id": "x", "choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 0}}),
    "mistral422": (
        422,
        {
            "object": "error",
            "message": {
                "detail": [
                    {
                        "type": "extra_forbidden",
                        "loc": ["body", "max_completion_tokens"],
                        "msg": _EXTRA,
                        "input": 1200,
                    }
                ]
            },
            "type": "invalid_request_error",
            "param": None,
            "code": None,
        },
    ),
    "vllm400": (
        400,
        {
            "object": "error",
            "message": "[{'type': 'extra_forbidden', 'loc': ('body', 'max_completion_tokens'),"
            f" 'msg': '{_EXTRA}', 'input': 800}}]",
            "type": "BadRequestError",
            "param": None,
            "code": 400,
        },
    ),
    "openai_tokens": (
        400,
        {
            "error": {
                "message": "Unsupported parameter: 'max_tokens' is not supported with this model. Use"
                " 'max_completion_tokens' instead.",
                "type": "invalid_request_error",
                "param": "max_tokens",
                "code": "unsupported_parameter",
            }
        },
    ),
    "openai_temp": (
        400,
        {
            "error": {
                "message": "Unsupported value: 'temperature' does not support 0 with this model.",
                "type": "invalid_request_error",
                "param": "temperature",
                "code": "unsupported_value",
            }
        },
    ),
    "azure_filter": (
        400,
        {
            "error": {
                "message": _FILTERED,
                "type": None,
                "param": "prompt",
                "code": "content_filter",
                "status": 400,
                "innererror": {"code": "ResponsibleAIPolicyViolation"},
            }
        },
    ),
    "litellm_filter": (
        400,
        {
            "error": {
                "message": "litellm.BadRequestError: litellm.ContentPolicyViolationError: AzureException - "
                + _FILTERED,
                "type": None,
                "param": None,
                "code": "400",
            }
        },
    ),
    "ollama_no_vision": (
        500,
        {
            "error": {
                "message": "this model is missing data required for image input",
                "type": "api_error",
                "param": None,
                "code": None,
            }
        },
    ),
}
"""Modes whose answer is always the same: its status and body."""

_STREAM: Final = "stream"
_REPEATS: Final = "repeats"
_FILTER: Final = "content_filter_finish"

MODES: Final = frozenset({*_TEXTS, *_MESSAGES, *_USAGES, *_BODIES, _STREAM, _FILTER, _REPEATS})


def answer(mode: str, completion: JsonObject) -> tuple[int, bytes]:
    """Return status and body of a mode's answer, made from the completion that would be the right one."""
    if mode in _BODIES:
        status, body = _BODIES[mode]
        return status, json.dumps(body).encode()
    choice = completion["choices"][0]
    text = choice["message"]["content"]
    if mode == _STREAM:
        return 200, _chunks(text)
    if mode in _TEXTS:
        choice["message"]["content"] = _TEXTS[mode](json.loads(text), text)
    elif mode in _MESSAGES:
        choice["message"] |= _MESSAGES[mode](text)
    elif mode in _USAGES:
        completion["usage"] = _USAGES[mode]
    elif mode == _REPEATS:
        # the end of its last property is said again until the tokens are used up
        kept = text.rstrip("}")
        choice["message"]["content"] = kept + kept[-20:] * 50
        choice["finish_reason"] = "length"
    elif mode == _FILTER:
        choice["message"]["content"] = None
        choice["finish_reason"] = "content_filter"
    return 200, json.dumps(completion, ensure_ascii=False).encode()


def _chunks(text: str) -> bytes:
    """Return the text as a stream of two chunks, as some gateways answer whatever was asked for."""
    chunks = (
        {"object": "chat.completion.chunk", "choices": [{"index": 0, "delta": {"content": part}}]}
        for part in (text[:20], text[20:])
    )
    return b"".join(b"data: %s\n\n" % json.dumps(chunk).encode() for chunk in chunks) + b"data: [DONE]\n\n"
