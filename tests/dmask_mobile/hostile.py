"""Names that are markup somewhere: Markdown, HTML, YAML, TeX, spreadsheets, terminals."""

from __future__ import annotations

from markdown_it import MarkdownIt

NAMES = (
    "=cmd|' /C calc'!A0",
    "$x^2$ \\frac{",
    "<img src=x onerror=alert(1)>",
    "a | b `c` **d** _e_ ~~f~~ [g](http://h.i) ![j](k)",
    "--- # l",
    "name: {m: [n",
    "&lt;o&gt; & <!-- p -->",
    "{{ q }}{% r %}",
    "# 1. s #",
    "\u732b \u202e t",
)


def tokens_of(markdown: str) -> list[tuple[str, str]]:
    """The type and the text of every element that a renderer produces."""
    found = []
    for token in MarkdownIt("commonmark").enable(["table", "strikethrough"]).parse(markdown):
        for part in token.children or [token]:
            found.append((part.type, part.content))
    return found
