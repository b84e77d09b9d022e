"""Write the German sentences of the local analyzer: what it sees, how sure it is, what it measured."""

from __future__ import annotations

from typing import TYPE_CHECKING

from shared.vision.local.picture import quality

if TYPE_CHECKING:
    from shared.vision.local.picture import Picture

_CAVEAT = "Automatisch erstellt, ohne Wissen über das Bauen: bitte prüfen."


def description(
    *, sure: str | None, maybe: str | None, share: float, measured: Picture, width: int, height: int
) -> list[str]:
    """Return the sentences, the most important first. `sure`, `maybe`: German names; `share`: 0 to 1."""
    percent = f"{round(share * 100)} %"
    if sure:
        first = f"Zu sehen: {sure} ({percent} sicher)."
    elif maybe:
        first = f"Vermutlich zu sehen: {maybe} ({percent} sicher)."
    else:
        first = "Das Motiv wurde nicht sicher erkannt."
    grade, faults = quality(measured, width=width, height=height)
    facts = [_shape(width, height), "technisch " + grade + (f" ({', '.join(faults)})" if faults else "")]
    if measured.colour:
        facts.append(f"vorherrschende Farbe {measured.colour}")
    return [first, ", ".join(facts) + ".", _CAVEAT]


def _shape(width: int, height: int) -> str:
    """Return for example ``Querformat mit 4032 x 3024 Pixeln``, with the multiplication sign."""
    if abs(width - height) * 20 <= max(width, height):
        name = "Quadratisches Bild"
    else:
        name = "Querformat" if width > height else "Hochformat"
    return f"{name} mit {width} × {height} Pixeln"  # noqa: RUF001  the sign that people write
