"""Says the sentences that pages and commands share, in a page's language; quotations are marked as such."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from markupsafe import Markup, escape

from console.pages import formats
from console.pages.texts import Quoted

if TYPE_CHECKING:
    from datetime import tzinfo

    from console.pages.texts import Texts

_CODE: Final = re.compile(r"`([^`]+)`")
_BEGINS: Final = re.compile(r"\A(?:an?|the|this|there|somebody|no)\b")
"""How a refusal begins that does not begin with a name."""


class Spoken:
    """Says the sentences of one visit as markup."""

    def __init__(self, texts: Texts, where: tzinfo) -> None:
        """`where`: the zone of the times in the sentences."""
        self._texts = texts
        self._zone = where

    def __call__(self, key: str, **values: object) -> Markup:
        """Return a sentence with its values filled in; commands in it are code.

        Where a page has a link or button for what the sentence's command does, it says another one
        (`<key>.here`).
        """
        key = f"{key}.here" if self._texts.has(f"{key}.here") else key
        template = _CODE.sub(r"<code>\1</code>", str(escape(self._texts.template(key))))
        shown = {
            name: self.quoted(value) if isinstance(value, Quoted) else value for name, value in values.items()
        }
        return Markup(template).format(**shown)  # noqa: S704 - our own sentence, escaped above

    def clock(self, unix: float) -> str:
        """Return a time of day with its zone."""
        return formats.clock(unix, self._texts.language, self._zone)

    def refused(self, why: str) -> Markup:
        """Return why an operation refused what a form asked for, as a sentence that stands alone."""
        return self("error.plain", why=Quoted(_BEGINS.sub(lambda found: found[0].title(), why)))

    def quoted(self, words: str) -> Markup:
        """Return English words of a process or service; on a page in another language as a quotation."""
        if self._texts.language == "en":
            return escape(words)
        return Markup('<q class="original" lang="en" title="{}">{}</q>').format(
            self._texts("original.title"), words
        )
