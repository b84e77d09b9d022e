"""Every switch of a library is on the page about practising, and has a test that names its source."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from sandbox.sharepoint.model import LibrarySettings
from tests.sandbox.sharepoint.client import SITE
from tests.tools import ROOT

if TYPE_CHECKING:
    from tests.sandbox.sharepoint.client import Graph

PAGE = (ROOT / "docs" / "sharepoint.md").read_text()
TABLE = PAGE[
    PAGE.index("| setting | what SharePoint does then |") : PAGE.index("A setting that you do not name")
]


def sourced(switch: str) -> list[str]:
    """The tests that set this switch and name their source."""
    found = []
    for path in Path(__file__).parent.glob("test_*.py"):
        text = path.read_text()
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.AsyncFunctionDef) and node.name.startswith("test_"):
                body = ast.get_source_segment(text, node) or ""
                if re.search(rf"\b{switch}\b", body) and "Source" in (ast.get_docstring(node) or ""):
                    found.append(node.name)
    return found


def test_the_page_lists_every_switch() -> None:
    assert set(re.findall(r"`([a-z]+(?:_[a-z]+)*)`", TABLE)) >= set(LibrarySettings.__struct_fields__)


@pytest.mark.parametrize("switch", LibrarySettings.__struct_fields__)
def test_every_switch_has_a_test_that_names_its_source(switch: str) -> None:
    assert sourced(switch)


async def test_a_tenant_has_other_sites_and_sites_below_sites(graph: Graph) -> None:
    """Sources: "Get a site resource by path", "Enumerate subsites": each has an id and lists of its own."""
    for number, path in enumerate(("sites/Alt", "sites/Bau/Umbau", "personal/a_b_ch")):
        await graph.admin("POST", "/lists", {"displayName": f"Fotos {number}", "site": path})
        site = (await graph.get(f"/sites/localhost:/{path.upper()}")).json
        assert site["webUrl"].endswith(f"/{path}")
        names = [one["displayName"] for one in (await graph.get(f"/sites/{site['id']}/lists")).json["value"]]
        assert names == [f"Fotos {number}"]
    main = (await graph.get(SITE)).json
    lists = (await graph.get(f"/sites/{main['id']}/lists")).json["value"]
    assert not [one for one in lists if one["displayName"].startswith("Fotos ")]
    assert (await graph.get("/sites/localhost:/sites/Nix")).status == 404
