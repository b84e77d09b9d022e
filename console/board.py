"""The demo's picture: photos in rows, agents in columns, and what stands before each agent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final

import msgspec

from console.rows import one_line, padded, short
from events import topology

if TYPE_CHECKING:
    from rich.text import Text

_MARKS: Final = {"done": "✓", "dead": "✗", "here": "●", "ahead": "·"}
_PLAIN_MARKS: Final = {"done": "+", "dead": "x", "here": "o", "ahead": "."}
_STYLES: Final = {"done": "green", "dead": "bold red", "here": "bold cyan", "ahead": "dim"}
_NAME_WIDTH: Final = 40
_AROUND: Final = 9
"""Lines that are no photos: title, head, rule, four counts, the note, and the one the cursor stands on."""


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One photo."""

    name: str
    outcomes: Mapping[str, str] = {}
    """agent → done or dead."""
    reason: str = ""
    """Why it is dead."""

    @property
    def ended(self) -> str:
        """dead, validated, or '' while it is on its way."""
        if "dead" in self.outcomes.values():
            return "dead"
        return "validated" if topology.AGENTS[-1] in self.outcomes else ""


class Column(msgspec.Struct, frozen=True, kw_only=True):
    """One agent."""

    agent: str
    waiting: int = 0
    in_flight: int = 0
    postponed: int = 0
    dead: int = 0
    trouble: str = ""
    """The outside part that does not answer, if one does not."""


class Picture(msgspec.Struct, frozen=True, kw_only=True):
    """Everything at one moment."""

    title: str
    rows: Sequence[Row]
    columns: Sequence[Column]
    seconds: float

    @property
    def validated(self) -> int:
        """Photos that are through."""
        return sum(row.ended == "validated" for row in self.rows)

    @property
    def dead(self) -> int:
        """Photos that are dead letters."""
        return sum(row.ended == "dead" for row in self.rows)

    @property
    def summary(self) -> str:
        """How far it is, in a line."""
        dead = f", {self.dead} dead" if self.dead else ""
        return f"{self.validated + self.dead} of {len(self.rows)} done{dead}   {self.seconds:.0f} s"


def plain_line(picture: Picture) -> str:
    """The picture in one line, for where nothing can be redrawn."""
    through = "  ".join(
        f"{_head(column.agent)} {sum(column.agent in row.outcomes for row in picture.rows)}"
        for column in picture.columns
    )
    troubles = [column.trouble for column in picture.columns if column.trouble]
    trouble = "".join(f"  ({part} cannot be used now)" for part in troubles)
    return f"{picture.summary}   {through}{trouble}"


def draw(picture: Picture, *, width: int, height: int, unicode: bool = True) -> Text:
    """The picture in a terminal of that size."""
    from rich.text import Text

    marks = _MARKS if unicode else _PLAIN_MARKS
    cells = {column.agent: len(_head(column.agent)) + 2 for column in picture.columns}
    name_width = min(width - sum(cells.values()) - 2, _NAME_WIDTH)
    line_width = name_width + 2 + sum(cells.values())
    text = Text(no_wrap=True, overflow="crop")
    text.append(f" {picture.title}", "bold")
    text.append(picture.summary.rjust(line_width - len(picture.title) - 1) + "\n")
    text.append(" " * (name_width + 2))
    for column in picture.columns:
        text.append(_head(column.agent).center(cells[column.agent]), "bold red" if column.trouble else "bold")
    text.append("\n")
    shown, hidden = _window(picture.rows, height - _AROUND)
    for row in shown:
        _draw_row(text, row, cells, name_width=name_width, width=width, marks=marks)
    if hidden:
        text.append(f"  {hidden}\n", "dim")
    text.append(("─" if unicode else "-") * line_width, "dim")
    counts = (
        ("waiting", [column.waiting for column in picture.columns], ""),
        ("in flight", [column.in_flight for column in picture.columns], "cyan"),
        ("postponed", [column.postponed for column in picture.columns], "yellow"),
        ("dead", [column.dead for column in picture.columns], "red"),
    )
    for what, numbers, style in counts:
        text.append(f"\n  {what.ljust(name_width)}", "dim")
        for number, width_of_cell in zip(numbers, cells.values(), strict=True):
            text.append(str(number or "·").center(width_of_cell), style if number else "dim")
    troubles = sorted({column.trouble for column in picture.columns if column.trouble})
    if troubles:
        text.append(f"\n  {' and '.join(troubles)} cannot be used now: photos wait, none is lost", "bold red")
    return text


def _head(agent: str) -> str:
    """What an agent's column is called: the last word of its name says what it does."""
    return agent.rpartition("_")[2]


def _draw_row(
    text: Text, row: Row, cells: Mapping[str, int], *, name_width: int, width: int, marks: Mapping[str, str]
) -> None:
    text.append(f"  {padded(short(one_line(row.name), name_width), name_width)}")
    used = name_width + 2
    here = not row.ended
    for agent, cell in cells.items():
        outcome = row.outcomes.get(agent, "")
        state = outcome or ("here" if here else "ahead")
        here = here and bool(outcome)
        if state == "dead":
            mark = " " * (cell // 2) + marks["dead"] + " "
            text.append(mark, _STYLES["dead"])
            room = width - used - len(mark)
            text.append(
                row.reason if len(row.reason) <= room else row.reason[: max(room - 1, 0)] + "…", "red"
            )
            break
        text.append(marks[state].center(cell), _STYLES[state])
        used += cell
    text.append("\n")


def _window(rows: Sequence[Row], room: int) -> tuple[list[Row], str]:
    """The rows that fit, those under way first, in their order; and what is left out, in words."""
    if len(rows) <= room:
        return list(rows), ""
    room = max(room - 1, 1)
    # Under way before dead before waiting before validated: what moves is what people look at.
    rank = {"": 0, "dead": 1, "waiting": 2, "validated": 3}
    order = sorted(
        range(len(rows)),
        key=lambda index: (rank[rows[index].ended or ("" if rows[index].outcomes else "waiting")], index),
    )
    kept = sorted(order[:room])
    left = [rows[index] for index in order[room:]]
    done = sum(row.ended == "validated" for row in left)
    words = [f"{done} validated"] if done else []
    words += [f"{len(left) - done} others"] if len(left) > done else []
    return [rows[index] for index in kept], f"… and {' and '.join(words)}"
