"""A page taken apart as a browser would: elements, attributes, and the text of each part."""

from __future__ import annotations

from html.parser import HTMLParser


class Markup(HTMLParser):
    """Reads a whole page at once."""

    def __init__(self, html: bytes) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.raw: dict[str, list[str]] = {"script": [], "style": []}
        self.sections: dict[str, str] = {"": ""}
        """Text by the id of the section it stands in, the page's head and foot under ''."""
        self._inside: list[str] = []
        self._section = ""
        self.feed(html.decode())
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self.elements.append((tag, given))
        if tag in self.raw:
            self._inside.append(tag)
            self.raw[tag].append("")
        if tag == "section":
            self._section = given["id"]
            self.sections[self._section] = ""

    def handle_endtag(self, tag: str) -> None:
        if tag in self.raw:
            self._inside.pop()
        if tag == "section":
            self._section = ""

    def handle_data(self, data: str) -> None:
        if self._inside:
            self.raw[self._inside[-1]][-1] += data
        else:
            self.sections[self._section] += data

    def all(self, tag: str) -> list[dict[str, str]]:
        """The attributes of every element of that name."""
        return [attributes for name, attributes in self.elements if name == tag]

    def text(self, section: str = "") -> str:
        """A section's text with single blanks."""
        return " ".join(self.sections[section].split())
