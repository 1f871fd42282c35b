"""HTML elements, with everything in them escaped: names come from files that anybody may have written."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape


class Markup(str):
    """A text that is HTML already."""

    __slots__ = ()


def element(tag: str, *children: str, **attributes: str) -> Markup:
    """Return an element; ``class_`` stands for ``class``, and ``_`` for ``-`` elsewhere."""
    given = "".join(f' {name.rstrip("_").replace("_", "-")}="{escape(value)}"' for name, value in attributes.items())
    return Markup(f"<{tag}{given}>{joined(children)}</{tag}>")


def image(source: str, alt: str, **attributes: str) -> Markup:
    """Return a picture."""
    given = "".join(f' {name.rstrip("_")}="{escape(value)}"' for name, value in attributes.items())
    return Markup(f'<img src="{escape(source)}" alt="{escape(alt)}"{given}>')


def joined(children: Iterable[str]) -> Markup:
    """Return texts and elements one after the other; texts escaped."""
    return Markup("".join(child if isinstance(child, Markup) else escape(child, quote=False) for child in children))


def table(caption: str, heads: Sequence[str], rows: Iterable[Sequence[str]]) -> Markup:
    """Return a table that scrolls by itself; the first column is text, the others are numbers."""
    head = element("thead", element("tr", *(element("th", text, scope="col") for text in heads)))
    body = [element("tr", element("th", row[0], scope="row"), *(element("td", cell) for cell in row[1:])) for row in rows]
    named = {"role": "region", "aria_label": caption, "tabindex": "0"}  # for who scrolls by keyboard
    return element("div", element("table", head, element("tbody", *body)), class_="scroll", **named)
