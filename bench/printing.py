"""How a benchmark prints its figures: a table to read, and one line of JSON to keep."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table


def print_figures(title: str | None, figures: Mapping[str, Any]) -> None:
    """Print a table of figures by name, and after it all of them as one JSON object."""
    table = Table(title=title)
    table.add_column("measure")
    table.add_column("value", justify="right")
    for key, value in figures.items():
        table.add_row(key, str(value))
    Console().print(table)
    print(json.dumps(figures))
