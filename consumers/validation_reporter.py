"""Reads the stored photo back, compares and reports; writes a session's page when the session is complete."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, ClassVar, Final, TypeAlias

from events.types import (
    PhotoInShort,
    PhotoUploaded,
    PhotoValidated,
    SessionCompleted,
    SessionReported,
    Step,
)
from shared.delivery.agent import Agent, current_delivery
from shared.operations.dead_letters import dead_of_session
from shared.photo_store import BlobStore
from shared.photos.decoders import Decoders
from shared.reports.facts import SessionFacts
from shared.reports.photo_report import PhotoReport, trace_id_of, write_photo_report
from shared.reports.readback import ReadBack
from shared.reports.session_report import write_session_report
from shared.reports.thumbnail import thumbnail
from shared.retry.errors import because
from shared.sharepoint.client import DEPENDENCY, GraphClient
from shared.sharepoint.libraries import Libraries, aimed_at_library
from shared.telemetry.redact import public_source
from shared.vision.prices import cost_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from redis.asyncio import Redis

    from shared.reports.facts import DeadPhoto
    from shared.reports.readback import Checked
    from shared.settings import Settings

    DeadOfSession: TypeAlias = Callable[[Redis, str, int], Awaitable[Sequence[DeadPhoto]]]

# An event stays small (MAX_EVENT_BYTES): its lists are in short, the page has all of them.
_LISTED = 100
_REASON_LENGTH = 300
_REFUSALS: Final = frozenset({403, 507})
"""Answers of a library to every photo; a 404 is not among them: a person may have removed the item."""


class ValidationReporter(Agent[PhotoUploaded | SessionCompleted, PhotoValidated | SessionReported]):
    """From a stored photo to its verdict, and from a complete session to its report."""

    name: ClassVar[str] = "validation_reporter"
    dependencies: ClassVar[frozenset[str]] = frozenset({DEPENDENCY})

    def __init__(
        self, settings: Settings, redis: Redis, *, dead_letters: DeadOfSession = dead_of_session
    ) -> None:
        """`dead_letters`: reads a session's dead letters from Redis, its id and the number of lanes."""
        super().__init__(settings, redis)
        self._store = BlobStore(settings.photo_store_url)
        self._decoders = Decoders()
        self._client = GraphClient(settings)
        self._libraries = Libraries(self._client, self._store, settings)
        self._read_back = ReadBack(self._client, self._store, self._libraries)
        self._dead_letters = dead_letters

    async def open(self) -> None:
        """Open the session with Graph, and start the decoder."""
        await self._decoders.open()
        await self._client.open()

    async def close(self) -> None:
        """Close them."""
        await self._decoders.close()
        await self._libraries.close()
        await self._client.close()

    async def handle(self, event: PhotoUploaded | SessionCompleted) -> PhotoValidated | SessionReported:
        """Validate a photo, or report a session.

        Raises PermanentError if the item is gone, or if a required column still differs after one repair.
        """
        if isinstance(event, SessionCompleted):
            return await self._report(event)
        return await self._validate(event)

    async def _validate(self, photo: PhotoUploaded) -> PhotoValidated:
        started = time.time()
        with because("readback"), aimed_at_library(photo.library.site, photo.library.library, _REFUSALS):
            checked = await self._read_back.check(photo)
        # Made now, photo by photo, so that a session's page has only to gather them.
        await thumbnail(self._store, self._decoders, photo.sha256, photo.preview_ref)
        report = self._photo_report(photo, checked, started)
        reference = await write_photo_report(self._store, report)
        carried = {name: getattr(photo, name) for name in photo.__struct_fields__}
        return PhotoValidated(
            **(carried | {"item": checked.item, "needs_person": checked.needs_person}),
            verdicts=report.verdicts,
            verdict=checked.verdict,
            report_ref=reference,
            steps=report.steps,
        )

    def _photo_report(self, photo: PhotoUploaded, checked: Checked, started: float) -> PhotoReport:
        delivery = current_delivery.get()
        now = time.time()
        own = Step(
            agent=self.name,
            started=round(started, 3),
            seconds=round(now - started, 3),
            deliveries=delivery.deliveries,
        )
        sideways = photo.orientation >= 5  # Exif 3.0: 5 to 8 swap width and height
        analysis = photo.analysis
        cost = cost_of(self.settings, analysis.prompt_tokens, analysis.completion_tokens)
        return PhotoReport(
            photo_id=photo.photo_id,
            session_id=photo.session_id,
            file_name=photo.file_name,
            source=public_source(photo.source_url),
            sha256=photo.sha256,
            size=photo.size,
            media_type=photo.media_type,
            width=photo.height if sideways else photo.width,
            height=photo.width if sideways else photo.height,
            taken_at=photo.exif.taken_at,
            camera=photo.exif.camera,
            library=photo.library.library,
            library_url=photo.library.web_url,
            item=checked.item,
            file_same=checked.file_same,
            fields=checked.fields,
            needs_person=checked.needs_person,
            verdict=checked.verdict,
            analysis=analysis,
            cost=0.0 if cost is not None and analysis.cached else cost,
            currency=self.settings.vision_currency,
            steps=[*delivery.steps, own],
            trace_id=trace_id_of(delivery.traceparent),
            preview_ref=photo.preview_ref,
            checked_at=now,
            time_zone=checked.time_zone,
        )

    async def _report(self, session: SessionCompleted) -> SessionReported:
        dead = await self._dead_letters(self.redis, session.session_id, self.settings.lanes)
        written = await write_session_report(
            self._store, SessionFacts.of(session), dead, jaeger_url=self.settings.jaeger_url
        )
        return SessionReported(
            session_id=session.session_id,
            completion=session.completion,
            report_ref=written.report_ref,
            validated=written.validated,
            dead=written.dead,
            needs_person=_in_short(written.needs_person),
            dead_photos=_in_short(written.dead_photos),
        )


def _in_short(photos: Sequence[PhotoInShort]) -> list[PhotoInShort]:
    """The first ones, with reasons cut to what fits a line or two."""
    return [
        PhotoInShort(
            photo_id=photo.photo_id,
            file_name=photo.file_name,
            reason=photo.reason
            if len(photo.reason) <= _REASON_LENGTH
            else photo.reason[: _REASON_LENGTH - 1] + "…",
        )
        for photo in photos[:_LISTED]
    ]
