"""``inference-gate published``: the figures from the literature, as a table."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence

from .published import CARDS, PublishedError, PublishedFigure, figures_file, read_figures

SCHEMA = "inference-gate-published/1"


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to those of the command line."""
    parser = subparsers.add_parser(
        "published",
        help="list what others have published for boards",
        description="List what others have measured and published for boards. "
        "These figures are means without spread: they are shown beside a result on the same board, and never gate.",
    )
    parser.add_argument("--device", metavar="NAME", help="only devices with this in their name, such as 'Jetson Nano'")
    parser.add_argument("--model", metavar="NAME", help="only models with this in their name, or of this model card")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """The command. Raises a ``GateError`` where nothing has the name that was asked for."""
    figures: Sequence[PublishedFigure] = read_figures(figures_file())
    if options.device is not None:
        figures = _named(figures, options.device, "device", lambda figure: (figure.device,))
    if options.model is not None:
        figures = _named(figures, options.model, "model", lambda figure: (figure.model, *CARDS.get(figure.model, ())))
    if options.json:
        document = {"schema": SCHEMA, "figures": [_document(figure) for figure in figures]}
        sys.stdout.write(json.dumps(document, indent=4) + "\n")
    else:
        sys.stdout.write("\n".join(_table(figures)) + "\n")
    return 0


def _named(
    figures: Sequence[PublishedFigure], wanted: str, what: str, names: Callable[[PublishedFigure], Sequence[str]]
) -> list[PublishedFigure]:
    found = [figure for figure in figures if any(wanted.lower() in name.lower() for name in names(figure))]
    if not found:
        known = sorted({name for figure in figures for name in names(figure) if name})
        raise PublishedError(f"nothing is published for the {what} {wanted!r}; there is {', '.join(known) or 'nothing else'}")
    return found


def _document(figure: PublishedFigure) -> dict[str, object]:
    si = figure.in_si
    return {
        "source": figure.source,
        "device": figure.device or None,
        "software": figure.software,
        "model": figure.model,
        "cards": list(CARDS.get(figure.model, ())),
        "backend": figure.backend,
        "precision": figure.precision,
        "variant": figure.variant,
        "threads": figure.threads,
        "metric": figure.metric,
        "value": None if si is None else si[0],
        "unit": None if si is None else si[1],
        "as_published": figure.as_published,
        "note": figure.note,
    }


def _table(figures: Sequence[PublishedFigure]) -> list[str]:
    from tabulate import tabulate

    headers = ("device", "model", "backend", "precision", "variant", "threads", "metric", "value", "source")
    rows = [
        [
            *(figure.device or "-", figure.model, figure.backend, figure.precision or "-", figure.variant or "-"),
            *("-" if figure.threads is None else str(figure.threads), figure.metric, figure.as_published, figure.source),
        ]
        for figure in figures
    ]
    return tabulate(rows, headers, tablefmt="simple", disable_numparse=True).splitlines()
