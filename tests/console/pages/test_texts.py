"""Every sentence of the console exists in both languages, is used, and takes the same values."""

from __future__ import annotations

import re
from pathlib import Path
from string import Formatter

import pytest

from console.pages import texts
from console.pages.texts import LANGUAGES, catalogue, chosen
from events import topology

HERE = Path(texts.__file__).parent
SOURCES = [*HERE.glob("*.py"), *(HERE / "templates").glob("*.html"), HERE.parent / "agent_state.py"]
SAID = "\n".join(path.read_text("utf-8") for path in SOURCES)


def _values(text: str) -> set[str]:
    return {name for _, name, _, _ in Formatter().parse(text) if name}


def test_both_languages_are_complete_and_take_the_same_values() -> None:
    for key, text in catalogue().items():
        assert set(text) == set(LANGUAGES), key
        assert all(value.strip() for value in text.values()), key
        assert _values(text["en"]) == _values(text["de"]), key


def test_every_counted_sentence_has_both_numbers() -> None:
    for key in catalogue():
        stem, _, form = key.rpartition(".")
        if form in ("one", "many"):
            assert {f"{stem}.one", f"{stem}.many"} <= set(catalogue()), key


def test_every_sentence_that_a_page_names_exists() -> None:
    named = set(re.findall(r"""\b(?:t|says)\(\s*['"]([\w. ]+)['"]\s*[,)]""", SAID))
    named |= set(re.findall(r"""RefusedError\(\s*['"]([\w.]+)['"]""", SAID))
    counted = set(re.findall(r"""\bn\(\s*['"]([\w.]+)['"]\s*,""", SAID))
    assert len(named) > 100
    assert named <= set(catalogue())
    assert {f"{key}.{form}" for key in counted for form in ("one", "many")} <= set(catalogue())


def test_no_sentence_is_left_over() -> None:
    prefixes = set(re.findall(r"""['"]([\w.]+\.)['"] ~""", SAID)) | set(
        re.findall(r"""f['"]([\w.]+\.)\{""", SAID)
    )
    named = set(re.findall(r"""['"]([\w]+\.[\w. ]+)['"]""", SAID))
    counted = set(re.findall(r"""\bn\(\s*['"]([\w.]+)['"]\s*,""", SAID))
    for key in catalogue():
        stem = key.removesuffix(".one").removesuffix(".many").removesuffix(".here")
        assert stem in named | counted or any(key.startswith(one) for one in prefixes), key


def test_every_agent_has_a_name() -> None:
    assert {f"agent.{agent}" for agent in topology.CONSUMERS} <= set(catalogue())


@pytest.mark.parametrize(
    ("header", "language"),
    [
        ("", "en"),
        ("de-CH,de;q=0.9,en;q=0.8", "de"),
        ("en-GB,en;q=0.9,de;q=0.5", "en"),
        ("fr-CH, de;q=0.5", "de"),
        ("fr", "en"),
        ("de;q=nonsense", "en"),
        ("en;q=0.1,de;q=0.2", "de"),
    ],
)
def test_the_browsers_language_is_taken(header: str, language: str) -> None:
    assert chosen(header) == language
