"""Describe photos on this machine: the thousand classes of ImageNet in German, and measurements.

An ImageNet classifier has never seen construction phases, kinds of wood or types of building. It never fills
columns about those, however sure it is of what it sees.
"""

from __future__ import annotations

import asyncio
import io
from typing import TYPE_CHECKING, Any, Final

import msgspec
from PIL import Image

from events.types import FieldValue, NeedsPerson
from shared.columns.checks import check_value
from shared.columns.merge import NOT_SEEN
from shared.columns.topics import Topic, topic_of
from shared.columns.words import first_choice
from shared.settings import cache_folder
from shared.vision.contract import Answer, PhotoContext, unsure
from shared.vision.inference import infer
from shared.vision.local import picture, vocabulary
from shared.vision.local.model import MODEL, classify, open_session
from shared.vision.local.sentences import description

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from shared.columns.schema import Column, LibrarySchema
    from shared.settings import Settings
    from shared.vision.local.onnx_session import Session

SURE: Final = 0.7
"""The probability from which something counts as seen.

Measured on 37 pictures (photographs, and textures, microscope images and drawings that no term describes),
each in eleven versions (mirrored, cropped, turned, blurred, darker, brighter, without colour): 165 times
something had 0.7 or more, and 2 of those were wrong, both a drawn horse that was a "Hund". At 0.6 it was
8 of 207, at 0.5 16 of 245, at 0.4 37 of 303.
"""
MAYBE: Final = 0.4
"""From this probability the description says "vermutlich"; it is too low to fill a choice."""

_RULES: Final = "1"
"""Counts the changes of the rules in this module, `picture` and `sentences`."""
_MEASURED: Final = 0.9
"""The confidence of a measured quality, a rule of thumb; `picture.quality` documents its hit rate."""

_NOT_KNOWN: Final[dict[Topic, str]] = {
    "phase": "Der lokale Analysator kennt keine Bauphasen.",
    "wood": "Der lokale Analysator kennt keine Holzarten.",
    "building_type": "Der lokale Analysator kennt keine Gebäudetypen.",
    "people": "Der lokale Analysator sucht keine Personen.",
}
_QUALITY_WORDS: Final[dict[picture.Quality, tuple[str, ...]]] = {
    "gut": ("gut", "hoch", "sehr gut"),
    "mittel": ("mittel", "genügend", "brauchbar", "mässig"),
    "schlecht": ("schlecht", "ungenügend", "tief", "niedrig"),
}


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    """Hold the result of one look at a preview."""

    probabilities: Any
    """Of the 1000 classes, a float32 array."""
    measured: picture.Picture
    width: int
    height: int


class LocalAnalyzer:
    """Describe photos without account or network. The first start converts the model into the cache."""

    model = MODEL

    def __init__(self, settings: Settings) -> None:
        self._cache_dir = cache_folder(settings)
        self._vocabulary = vocabulary.load()
        self._session: Session | None = None
        self.prompt_version = f"{_RULES}-{self._vocabulary.digest}"

    async def open(self) -> None:
        """Load the model. Raises SettingsError without its package, WeightsError if that is another one."""
        self._session = await asyncio.to_thread(open_session, self._cache_dir)

    async def close(self) -> None:
        """Release the model."""
        self._session = None

    async def describe(self, preview: bytes, schema: LibrarySchema, context: PhotoContext) -> Answer:
        """Fill what the classifier and the measurements can tell. Takes some 30 ms of one core.

        Raises OSError or ValueError for a preview that is no picture.
        """
        session = self._session
        if session is None:
            raise RuntimeError("the local analyzer was not opened: call open() first")
        seen = await infer(_look, session, preview, context)
        return self.answer(seen, schema)

    def answer(self, seen: Seen, schema: LibrarySchema) -> Answer:
        """Return the values of the columns for what was seen."""
        fields: dict[str, FieldValue] = {}
        needs: list[NeedsPerson] = []
        text = self._description(seen)
        for column in schema.writable:
            found = self._column(column, seen, text)
            if isinstance(found, NeedsPerson):
                needs.append(found)
            elif found is not None:
                fields[column.name] = found
        return Answer(fields=fields, needs_person=needs, description=" ".join(text))

    def _column(self, column: Column, seen: Seen, text: list[str]) -> FieldValue | NeedsPerson | None:
        """Return the value of one column; None if no picture, or not this analyzer, can know it."""
        topic = topic_of(column)
        if topic in NOT_SEEN:
            return None
        if topic in _NOT_KNOWN:
            return unsure(column, _NOT_KNOWN[topic])
        if column.kind in ("text", "note"):
            return self._text(column, topic, seen, text)
        if topic == "quality" and column.kind == "choice":
            grade, _ = picture.quality(seen.measured, width=seen.width, height=seen.height)
            choice = first_choice(_QUALITY_WORDS[grade], column.choices)
            if choice is not None:
                return FieldValue(value=choice, source="vision", confidence=_MEASURED)
            return unsure(column, f"Keine Auswahl heisst «{grade}», wie gemessen wurde.")
        if column.kind in ("choice", "multi_choice"):
            return self._choices(column, seen)
        return None

    def _choices(self, column: Column, seen: Seen) -> FieldValue | NeedsPerson:
        """Return the choices whose word is surely in the picture."""
        shares = [
            (self._vocabulary.choice_share(choice, seen.probabilities), choice) for choice in column.choices
        ]
        sure = sorted((pair for pair in shares if pair[0] >= SURE), reverse=True)
        if not sure:
            return unsure(column, "Der lokale Analysator erkennt keine der Auswahlen sicher.")
        if column.kind == "choice":
            return FieldValue(value=sure[0][1], source="vision", confidence=_rounded(sure[0][0]))
        chosen = {choice for _, choice in sure}
        return FieldValue(
            value=[choice for choice in column.choices if choice in chosen],
            source="vision",
            confidence=_rounded(sure[-1][0]),
        )

    def _text(
        self, column: Column, topic: Topic | None, seen: Seen, text: list[str]
    ) -> FieldValue | NeedsPerson | None:
        """Return a description or keywords; sentences that do not fit into the column are left out."""
        best = self._named(seen)[0][1]
        if topic == "description":
            # that nothing was recognised is as true as what was measured
            confidence = best if best >= MAYBE else _MEASURED
            for end in range(len(text), 0, -1):
                value = " ".join(text[:end])
                if check_value(column, value) is None:
                    return FieldValue(value=value, source="vision", confidence=_rounded(confidence))
        if topic == "keywords":
            names = [name for name, share in self._named(seen) if share >= SURE]
            if not names:
                return unsure(column, "Der lokale Analysator erkennt nichts sicher.")
            return FieldValue(value=", ".join(names), source="vision", confidence=_rounded(best))
        return None

    def _description(self, seen: Seen) -> list[str]:
        """Return the sentences of the description, the most important first."""
        name, share = self._named(seen)[0]
        return description(
            sure=name if share >= SURE else None,
            maybe=name if MAYBE <= share < SURE else None,
            share=share,
            measured=seen.measured,
            width=seen.width,
            height=seen.height,
        )

    def _named(self, seen: Seen) -> list[tuple[str, float]]:
        """Return what is seen, best name first: the term if it is sure enough, else the kind of thing."""
        term = self._vocabulary.shares(seen.probabilities)[0]
        kind = self._vocabulary.kind_shares(seen.probabilities)[0]
        if term[1] >= SURE or (term[1] >= MAYBE and kind[1] < SURE):
            return [term, kind]
        return [kind, term]


def _look(session: Session, preview: bytes, context: PhotoContext) -> Seen:
    """Decode, classify and measure. This keeps a core busy."""
    with Image.open(io.BytesIO(preview)) as opened:
        rgb = opened.convert("RGB")
    probabilities: NDArray[Any] = classify(session, rgb)
    return Seen(
        probabilities=probabilities,
        measured=picture.measure(rgb),
        width=context.width or rgb.width,
        height=context.height or rgb.height,
    )


def _rounded(share: float) -> float:
    """Round to two digits; this model's probabilities are not more precise."""
    return round(min(share, 1.0), 2)
