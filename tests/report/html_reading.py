"""A page as a browser's parser would take it apart."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from typing import Any

VOID = {"meta", "br", "img", "link", "input", "hr"}


class Page(HTMLParser):
    """Elements with their attributes, the text of each kind of script, all visible text; what is not closed."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.wrong: list[str] = []
        self.texts: list[tuple[str, str]] = []
        self.scripts: list[str] = []
        self.data: Any = None
        self._scripts_type: str | None = None
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "script":
            self._scripts_type = dict(attrs).get("type")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.wrong.append(tag)

    def handle_data(self, data: str) -> None:
        where = self.open[-1] if self.open else ""
        if where == "script" and self._scripts_type == "application/json":
            self.data = json.loads(data)
        elif where == "script":
            self.scripts.append(data)
        elif where != "style":
            self.texts.append((where, data))

    @property
    def text(self) -> str:
        return "".join(text for _, text in self.texts)

    def chart(self, title: str) -> dict[str, Any]:
        (found,) = [one for one in self.data if one["title"] == title]
        return dict(found)

    def line(self, title: str, label: str) -> dict[float, tuple[Any, Any, Any]]:
        """x → (y, low, high) of a line of a chart."""
        chart = self.chart(title)
        (line,) = [one for one in chart["lines"] if one["label"] == label]
        none = [None] * len(line["y"])
        rows = zip(chart["x"][line["x"]], line["y"], line.get("low", none), line.get("high", none), strict=True)
        return {x: (y, low, high) for x, y, low, high in rows}
