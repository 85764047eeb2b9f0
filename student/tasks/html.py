"""Fragments of HTML for the panels and charts of tasks. Every text is escaped here."""

from collections.abc import Mapping, Sequence
from html import escape

__all__ = ["definitions", "escape", "marked", "paragraphs", "preformatted", "table"]


def paragraphs(text: str) -> str:
    """A paragraph for each line of `text` that is not blank."""
    return "".join(f"<p>{escape(line)}</p>" for line in text.splitlines() if line.strip())


def preformatted(text: str) -> str:
    """`text` as it is, in a fixed-width font."""
    return f"<pre>{escape(text)}</pre>"


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table of plain texts."""
    head = "".join(f"<th>{escape(cell)}</th>" for cell in header)
    body = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in rows)
    return f"<table><tr>{head}</tr>{body}</table>"


def definitions(values: Mapping[str, str], wrong: frozenset[str] = frozenset()) -> str:
    """A list of names and plain texts. Those of `wrong` names are marked as wrong."""
    items = (
        f"<dt>{escape(name)}</dt><dd{' class=wrong' if name in wrong else ''}>{escape(value)}</dd>"
        for name, value in values.items()
    )
    return f"<dl>{''.join(items)}</dl>"


def marked(text: str, spans: Sequence[tuple[int, int]]) -> str:
    """`text` with the characters start:stop of each span marked. Spans are in order and do not overlap."""
    pieces, position = [], 0
    for start, stop in spans:
        pieces += [escape(text[position:start]), f"<mark>{escape(text[start:stop])}</mark>"]
        position = stop
    return "".join([*pieces, escape(text[position:])])
