"""The README is true."""

from __future__ import annotations

import re

from events import topology
from tests.tools import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_its_picture_is_the_topologys() -> None:
    assert topology.picture() in README


def test_every_link_leads_somewhere() -> None:
    pages = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
    broken = [
        f"{page.relative_to(ROOT)}: {target}"
        for page in pages
        for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8"))
        if not target.startswith(("http:", "https:", "mailto:")) and not (page.parent / target).exists()
    ]
    assert broken == []
