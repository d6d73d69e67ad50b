"""Columns of a table, and how as many of them as have room are laid out in a terminal."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

Row = TypeVar("Row")


@dataclass(frozen=True)
class Column(Generic[Row]):
    """``spare``: the column goes when the table is too wide, the lowest number first; None: it stays. ``identity``: it tells
    which row it is, and goes into the caption where it is the same for all. ``legend``: what the header means, where it
    does not say so itself.
    """

    name: str
    header: str
    cell: Callable[[Row], str]
    number: bool = True
    identity: bool = False
    spare: int | None = None
    legend: str = ""


def laid_out(columns: Sequence[Column[Row]], rows: Sequence[Row]) -> list[str]:
    """The table's lines: those of the headers, a rule, and one for each row."""
    from tabulate import SEPARATING_LINE, tabulate

    headers = [column.header.split("\n") for column in columns]
    height = max(map(len, headers))
    # The headers go in as rows: as headers, each would be given two columns of padding, which a terminal has not to spare.
    heading = [[header[line] if line < len(header) else "" for header in headers] for line in range(height)]
    cells = [[column.cell(row) for column in columns] for row in rows]
    alignment = ["right" if column.number else "left" for column in columns]
    lines = tabulate(
        [*heading, SEPARATING_LINE, *cells], tablefmt="simple", disable_numparse=True, colalign=alignment
    ).splitlines()
    return lines[1:-1]  # without the rules above and below


def fitted(
    columns: Sequence[Column[Row]], rows: Sequence[Row], width: int
) -> tuple[list[Column[Row]], list[str], list[Column[Row]]]:
    """The columns that have room in so many characters, the lines of the table, and the columns that were left out.

    The lines are too long still where the columns that stay are.
    """
    kept, left_out = list(columns), []
    lines = laid_out(kept, rows)
    for column in sorted((column for column in columns if column.spare is not None), key=lambda column: column.spare or 0):
        if max(map(len, lines)) <= width:
            break
        kept.remove(column)
        left_out.append(column)
        lines = laid_out(kept, rows)
    return kept, lines, left_out
