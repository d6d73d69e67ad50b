"""The tables that a run can end with, by the names that ``--gate-table`` knows."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from .terminal import Table

DEFAULT_TABLE = "latency"

# Module of this package and function. Options name the tables long before one is printed, so nothing is imported until then.
TABLES: Mapping[str, tuple[str, str]] = {
    "latency": ("terminal", "table_lines"),  # one row a case
    "grid": ("grid_table", "grid_lines"),  # one block a model: what each precision and each number of threads costs and brings
    "build": ("build_table", "build_lines"),  # one row a build: nodes, engines and time, and throughput by the batch
}


def table_named(name: str) -> Table:
    """The table of that name. Raises KeyError where there is none."""
    module, function = TABLES[name]
    return cast("Table", getattr(import_module(f".{module}", __package__), function))
