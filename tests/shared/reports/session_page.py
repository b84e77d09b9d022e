"""Build a session's page for a test, of photos that are in order but for what the test changes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from shared.reports.photo_report import FieldReport, PhotoReport
from shared.reports.session_report import WrittenReport, write_session_report
from tests.shared.reports.markup import Markup
from tests.shared.reports.sample import Letter, photo_report

if TYPE_CHECKING:
    from collections.abc import Sequence

    from events.types import FieldText
    from shared.photo_store import BlobStore
    from shared.reports.facts import SessionFacts


JAEGER = "http://localhost:16686"


async def page_of(
    store: BlobStore, facts: SessionFacts, dead: Sequence[Letter] = ()
) -> tuple[Markup, WrittenReport]:
    written = await write_session_report(store, facts, dead, jaeger_url=JAEGER)
    return Markup(await store.get(written.report_ref)), written


def fine(seed: int, **changes: object) -> PhotoReport:
    """A photo with nothing to complain about, except for the changes."""
    report = msgspec.structs.replace(
        photo_report(seed),
        fields=[
            FieldReport(
                column="Bauphase",
                display_name="Bauphase",
                kind="choice",
                value="Rohbau",
                source="vision",
                confidence=0.62,
                sent="Rohbau",
                stored="Rohbau",
            )
        ],
        needs_person=[],
        verdict="ok",
        file_same=True,
    )
    return msgspec.structs.replace(report, **changes)


def undecided(seed: int, **stored: FieldText) -> PhotoReport:
    """A photo that is in order, of which some columns say that nobody knows yet."""
    fields = [
        FieldReport(
            column=name,
            display_name=name,
            kind="multi_choice" if isinstance(value, list) else "choice",
            value=value,
            source="vision",
            confidence=0.0,
            sent=value,
            stored=value,
        )
        for name, value in stored.items()
    ]
    return fine(seed, fields=[*fine(seed).fields, *fields])
