"""Ask services that speak OpenAI's chat completions: OpenAI, Azure, Ollama, vLLM, llama.cpp."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote, urlsplit

import aiohttp
import msgspec
import structlog

from shared.retry.breaker import OPEN_AFTER
from shared.retry.call_times import timed
from shared.retry.errors import PermanentError, TransientError, aimed_at, answering, dependency
from shared.settings import SettingsError, proxy_for
from shared.telemetry.metrics import VISION_COST, VISION_TOKENS
from shared.vision import prompt
from shared.vision.answer_reading import Reading, better, left_to_people, read_answer
from shared.vision.answer_schema import Asked, asked_of, json_schema
from shared.vision.budget import Budget
from shared.vision.completion import CUT, Completion, read_completion
from shared.vision.contract import Answer, Usage
from shared.vision.prices import cost_of
from shared.vision.refusals import SchemaRefusedError, refusal, refusal_inside

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from redis.asyncio import Redis

    from events.identities import SessionId
    from shared.columns.schema import LibrarySchema
    from shared.settings import Settings
    from shared.vision.contract import PhotoContext

log = structlog.get_logger()

_MAX_ANSWER: Final = 2_000_000
"""Bytes. A few kilobytes are usual."""
_LARGER: Final = 3
"""Factor for the tokens of the second request when the first answer was cut off."""
_SILENCE: Final = 90.0
"""Seconds without a byte. Large models on small machines need long before the first one."""
_SHOWN: Final = 200
_KEPT: Final = 2000
"""Bytes of a body that is no completion, for the dead letter."""
_ERRORS_SHOWN: Final = 5


class OpenAIAnalyzer:
    """Ask the model once per photo, again if its answer was cut off, again to correct a wrong one.

    It never retries or waits after an error: it raises, and the delivery engine decides.
    """

    def __init__(self, settings: Settings, redis: Redis) -> None:
        """Raises SettingsError if VISION_URL or VISION_MODEL does not suffice."""
        if not settings.vision_model:
            raise SettingsError("VISION_BACKEND=openai needs VISION_MODEL: the model's or deployment's name")
        if urlsplit(settings.vision_url).scheme not in ("http", "https"):
            raise SettingsError("VISION_URL: expected an address that starts with http:// or https://")
        self._settings = settings
        self._budget = Budget(settings, redis)
        self._session: aiohttp.ClientSession | None = None
        self._unusable = 0
        self.model = settings.vision_model
        self.prompt_version = "-".join(
            (prompt.VERSION, str(settings.vision_preview_side), settings.vision_detail)
        )

    async def open(self) -> None:
        """Create the HTTP session. The first call connects."""
        key = str.__str__(self._settings.vision_api_key)
        headers = {"User-Agent": "erni-foto-agency"}
        if key and self._settings.vision_api_version:
            headers["api-key"] = key
        elif key:
            headers["Authorization"] = f"Bearer {key}"
        self._session = aiohttp.ClientSession(
            headers=headers,
            timeout=aiohttp.ClientTimeout(total=None, connect=10, sock_read=_SILENCE),
            trust_env=False,
            trace_configs=[timed("vision")],
        )

    async def close(self) -> None:
        """Close the connections."""
        if self._session is not None:
            await self._session.close()

    async def describe(self, preview: bytes, schema: LibrarySchema, context: PhotoContext) -> Answer:
        """Ask, read the answer, and let the model correct once what could not be read.

        A column that cannot be read even then is left to a person, and so are all if nothing can be read. An
        answer that is cut off even with more room is read as far as it goes: a model that repeats itself
        would do so in a correction, too.
        Raises PermanentError for a refusal or a filtered photo; SetupError for a refusal that no photo can
        be blamed for; HttpStatusError, TransientError and aiohttp's errors for what may pass; PostponeError
        while the budget or the account's quota is spent.
        """
        asked = asked_of(schema)
        if not asked:
            return Answer(fields={})
        form = self._settings.vision_schema_form
        conversation = prompt.messages(
            schema.library,
            asked,
            context,
            preview,
            detail=self._settings.vision_detail,
            with_schema=form == "none",
        )
        with _about(schema.library):
            first, usage = await self._answered(conversation, asked, context.session_id)
            reading = _read(first, asked)
            if reading.errors and first.finish_reason != CUT:
                conversation += prompt.repair(first.text, reading.errors)
                second, more = await self._answered(conversation, asked, context.session_id)
                usage += more
                reading = better(reading, _read(second, asked), asked)
            with answering(first.text):
                self._note(usable=_usable(reading, asked), answer=first)
        # more room is a setting: what was cut off is asked for again after it was changed
        usable = _usable(reading, asked) and first.finish_reason != CUT
        if reading.errors:
            # the service works, the model does not: no failure of the part, and the photo goes on
            log.warning(
                "part of the vision model's answer cannot be read: left to a person",
                error=f"{self.model}: {' '.join(reading.errors[:_ERRORS_SHOWN])}{_advice(first)}",
            )
            reading = left_to_people(reading, asked)
        return Answer(
            fields=reading.fields,
            needs_person=reading.needs_person,
            usage=usage,
            usable=usable,
            description=reading.summary,
        )

    def _note(self, *, usable: bool, answer: Completion) -> None:
        """Count answers of which nothing can be used. Raises TransientError after several in a row.

        The first ones may be the photos' fault, and are left to people. Later ones are the model's.
        """
        self._unusable = 0 if usable else self._unusable + 1
        if self._unusable >= OPEN_AFTER:
            raise TransientError(
                f"asking the vision model {self.model}: nothing in its last {self._unusable} answers can be"
                f" used; the last one begins with «{' '.join(answer.text.split())[:_SHOWN]}»."
                f" Check VISION_MODEL and VISION_SCHEMA_FORM{_advice(answer)}"
            )

    async def _answered(
        self, conversation: list[dict[str, Any]], asked: tuple[Asked, ...], session_id: SessionId | None
    ) -> tuple[Completion, Usage]:
        """Return an answer and what it took. If it was cut off, ask again with more tokens, once."""
        room = self._settings.vision_max_tokens
        completion = await self._call(conversation, asked, session_id, room)
        usage = completion.usage
        if completion.finish_reason == CUT and not completion.refusal:
            completion = await self._call(conversation, asked, session_id, room * _LARGER)
            usage += completion.usage
        with answering(completion.refusal or completion.text):
            self._check(completion)
        return completion, usage

    def _check(self, completion: Completion) -> None:
        """Raise PermanentError for a completion that is no answer."""
        if completion.refusal:
            raise PermanentError(
                f"asking the vision model {self.model}: it refused to describe the photo"
                f" ({' '.join(completion.refusal.split())[:_SHOWN]})"
            )
        if completion.finish_reason == "content_filter":
            raise PermanentError(
                f"asking the vision model {self.model}: the service's content filter held the answer back"
            )

    async def _call(
        self,
        conversation: list[dict[str, Any]],
        asked: tuple[Asked, ...],
        session_id: SessionId | None,
        max_tokens: int,
    ) -> Completion:
        """Send one request, pay it from the budget and count it."""
        async with self._budget.call(session_id) as call:
            body = msgspec.json.encode(self._request(conversation, asked, max_tokens))
            status, headers, answer = await self._post(body)
            if status != 200:
                call.used(Usage())
                raise refusal(status, headers, answer)
            with answering(answer[:_KEPT].decode("utf-8", "replace")):
                completion = self._read(answer)
            usage = completion.usage
            call.used(usage)
            if completion.error is not None:
                raise refusal_inside(headers, completion.error)
        VISION_TOKENS.labels(self.model, "input").inc(usage.prompt_tokens)
        VISION_TOKENS.labels(self.model, "output").inc(usage.completion_tokens)
        VISION_COST.labels(self.model).inc(
            cost_of(self._settings, usage.prompt_tokens, usage.completion_tokens) or 0.0
        )
        return completion

    def _read(self, answer: bytes) -> Completion:
        """Read the body of a 200. Raises TransientError if it is no chat completion."""
        try:
            return read_completion(answer)
        except ValueError as error:
            raise TransientError(
                f"asking the vision model {self.model}: the answer is no chat completion ({error});"
                " if that stays so, check VISION_URL"
            ) from error

    async def _post(self, body: bytes) -> tuple[int, Mapping[str, str], bytes]:
        """Return status, headers (in any case) and body."""
        if self._session is None:
            raise RuntimeError("the vision analyzer was not opened: call open() first")
        async with self._session.post(
            self._url(),
            data=body,
            headers={"Content-Type": "application/json"},
            # a redirect would send the key to another address
            allow_redirects=False,
            proxy=proxy_for(self._settings, self._url()),
        ) as response:
            answer = bytearray()
            async for chunk in response.content.iter_chunked(65_536):
                answer += chunk
                if len(answer) > _MAX_ANSWER:
                    raise TransientError(
                        f"asking the vision model {self.model}: the answer has more than {_MAX_ANSWER} bytes"
                    )
            return response.status, response.headers, bytes(answer)

    def _url(self) -> str:
        base = self._settings.vision_url.rstrip("/")
        if not self._settings.vision_api_version:
            return f"{base}/chat/completions"
        deployment = quote(self.model, safe="")
        version = quote(self._settings.vision_api_version, safe="")
        return f"{base}/openai/deployments/{deployment}/chat/completions?api-version={version}"

    def _request(
        self, conversation: list[dict[str, Any]], asked: tuple[Asked, ...], max_tokens: int
    ) -> dict[str, Any]:
        settings = self._settings
        request: dict[str, Any] = {
            "model": self.model,
            "messages": conversation,
            settings.vision_tokens_field: max_tokens,
        }
        if settings.vision_temperature is not None:
            request["temperature"] = settings.vision_temperature
        match settings.vision_schema_form:
            case "nested":
                request["response_format"] = {
                    "type": "json_schema",
                    "json_schema": {"name": "photo_meta", "strict": True, "schema": json_schema(asked)},
                }
            case "flat":
                request["response_format"] = {"type": "json_schema", "schema": json_schema(asked)}
        return request


@contextmanager
def _about(library: str) -> Iterator[None]:
    """Name whom a failure in this block concerns.

    One process asks one deployment, so what that refuses is the part's. A schema belongs to its library.
    """
    with aimed_at("vision", ""), aimed_at("vision", library, ()), dependency("vision"):
        try:
            yield
        except SchemaRefusedError:
            with dependency("vision", library):
                raise


def _read(completion: Completion, asked: tuple[Asked, ...]) -> Reading:
    return read_answer(asked, completion.text, cut=completion.finish_reason == CUT)


def _advice(answer: Completion) -> str:
    """Return what to do, after another sentence, about an answer that was cut off."""
    return "; it was cut off: raise VISION_MAX_TOKENS" if answer.finish_reason == CUT else ""


def _usable(reading: Reading, asked: tuple[Asked, ...]) -> bool:
    """Return whether at least one column of the answer can be read."""
    return not reading.error and len(reading.unread) < len(asked)
