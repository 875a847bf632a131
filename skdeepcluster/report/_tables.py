"""Records of clusters as tables to read: plain text and HTML."""

from __future__ import annotations

import html
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

Record = dict[str, Any]

# As many clusters as pandas shows rows, and as many entries of a list as fit on a line.
_MOST_ROWS = 60
_MOST_ENTRIES = 5


class _Column(NamedTuple):
    """How the values of one key are shown."""

    header: str
    write: Callable[[Any], str]
    is_text: bool = False


def _one_line(value: Any) -> str:
    return " ".join(str(value).split())


def _entries(values: Sequence[Any]) -> str:
    shown = [_one_line(value) for value in values[:_MOST_ENTRIES]]
    return ", ".join(shown + ["..."] * (len(values) > _MOST_ENTRIES))


_COLUMNS = {
    "label": _Column("cluster", str),
    "name": _Column("name", _one_line, is_text=True),
    "size": _Column("size", str),
    "share": _Column("share", "{:.1%}".format),
    "confidence": _Column("confidence", "{:.2f}".format),
    "class_weight": _Column("weight", "{:.2f}".format),
    "nearest": _Column("nearest", str),
    "representatives": _Column("representatives", _entries, is_text=True),
    "least_certain": _Column("least certain", _entries, is_text=True),
    "terms": _Column("terms", _entries, is_text=True),
}


def as_text(records: Sequence[Record]) -> str:
    """Return an aligned table: numbers to the right, words to the left."""
    columns = _shown_columns(records)
    lines = [[column.header for column in columns], *_cells(records)]
    widths = [max(map(len, cells)) for cells in zip(*lines, strict=True)]
    aligned = (
        "  ".join(
            cell.ljust(width) if column.is_text else cell.rjust(width)
            for cell, width, column in zip(line, widths, columns, strict=True)
        )
        for line in lines
    )
    return "\n".join([_title(records), *(line.rstrip() for line in aligned), *_left_out(records)])


def as_html(records: Sequence[Record]) -> str:
    """Return a table for notebooks, in the colours and the type of what is around it."""
    columns = _shown_columns(records)
    header = _html_row("th", [column.header for column in columns], columns)
    body = "".join(_html_row("td", cells, columns) for cells in _cells(records))
    notes = "".join(f"<p>{html.escape(note)}</p>" for note in _left_out(records))
    return (
        '<div style="overflow-x: auto"><table style="border-collapse: collapse; color: inherit">'
        f'<caption style="color: inherit; text-align: left">{_title(records)}</caption>'
        f"<thead>{header}</thead><tbody>{body}</tbody></table>{notes}</div>"
    )


def _html_row(tag: str, cells: Sequence[str], columns: Sequence[_Column]) -> str:
    return "<tr>{}</tr>".format(
        "".join(
            f'<{tag} style="text-align: {"left" if column.is_text else "right"}">'
            f"{html.escape(cell)}</{tag}>"
            for cell, column in zip(cells, columns, strict=True)
        )
    )


def _title(records: Sequence[Record]) -> str:
    n_samples = sum(record["size"] for record in records)
    return f"{n_samples} samples in {len(records)} cluster{'s' * (len(records) != 1)}"


def _left_out(records: Sequence[Record]) -> list[str]:
    n_more = len(records) - _MOST_ROWS
    return [f"... and {n_more} more clusters, which are in records"] if n_more > 0 else []


def _shown_columns(records: Sequence[Record]) -> list[_Column]:
    return [column for key, column in _COLUMNS.items() if key in records[0]]


def _cells(records: Sequence[Record]) -> list[list[str]]:
    """Return what is written into each row; "-" where an empty cluster has nothing to show."""
    return [
        [
            "-" if record[key] is None else column.write(record[key])
            for key, column in _COLUMNS.items()
            if key in record
        ]
        for record in records[:_MOST_ROWS]
    ]
