"""Reads a page as a strict reader would: every element closed, and what is where."""

from html.parser import HTMLParser

VOID = {"meta", "img", "br", "link", "input", "hr", "!doctype"}
SVG_EMPTY = {"path", "use", "circle", "line", "polyline", "rect"}


class Page(HTMLParser):
    """`elements`: (name, attributes) in order; `texts`: what a reader sees, without the style sheet."""

    def __init__(self, content: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict]] = []
        self.texts: list[str] = []
        self._open: list[str] = []
        self.feed(content)
        self.close()
        assert self._open == [], self._open

    def handle_starttag(self, tag: str, attrs: list) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open, f"</{tag}> closes nothing"
        assert self._open.pop() == tag, f"</{tag}> in {self._open}"

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1] != "style":
            self.texts.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())

    def all(self, name: str) -> list[dict]:
        return [attributes for tag, attributes in self.elements if tag == name]
