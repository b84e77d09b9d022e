"""The table of docs/sharepoint.md with what `erni doctor` says is what the code says."""

from __future__ import annotations

import re

from shared.sharepoint import answers
from tests.tools import ROOT

PAGE = (ROOT / "docs" / "sharepoint.md").read_text()
TABLE = PAGE[PAGE.index("| it says | do |") : PAGE.index("Then publish one photo")]
SAYS = re.findall(r"`([^`]+)`", " ".join(row.split(" | ")[0] for row in TABLE.splitlines()[2:]))


def _code() -> str:
    """What the code says about SharePoint, with sentences in one piece that stand on several lines."""
    files = [*(ROOT / "shared" / "sharepoint").rglob("*.py"), ROOT / "console" / "sharepoint_steps.py"]
    text = "\n".join(path.read_text() for path in files)
    return re.sub(r'"\s*\n\s*f?"', "", text)


def test_every_sentence_of_the_table_is_one_of_ours() -> None:
    code = _code()
    assert len(SAYS) > 20
    # of `looking up …: SharePoint answered 403 accessDenied` what is ours: Graph's words come from Graph
    own = [re.sub(r"\b(4\d\d|accessDenied|AADSTS\d+)\b", "…", said) for said in SAYS]
    pieces = {piece.strip(" :()") for said in own for piece in said.split("…")}
    assert {piece for piece in pieces if piece not in code} == set()


def test_every_refusal_of_the_sign_in_that_has_advice_is_in_it() -> None:
    listed = {int(number) for number in re.findall(r"`… AADSTS(\d+) …`", TABLE)}
    assert listed == answers._AADSTS.keys()
