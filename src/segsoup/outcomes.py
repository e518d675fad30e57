"""What became of each case that was to be predicted, in words and as a table."""

from __future__ import annotations

import csv
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from segsoup.errors import BadCases, InputError
from segsoup.files import whole

log = logging.getLogger(__name__)

COLUMNS = ["case", "outcome", "seconds", "where", "found", "expected", "mend"]

Outcome = Literal["predicted", "kept", "bad"]


@dataclass(frozen=True)
class Told:
    """What became of a case.

    Attributes:
        case: its name.
        outcome: `predicted`, `kept` from before or `bad`.
        seconds: that it took.
        problem: why it is bad.
    """

    case: str
    outcome: Outcome
    seconds: float
    problem: InputError | None = None

    def as_record(self) -> dict[str, Any]:
        """The same for a JSON file or a row of a table."""
        problem = self.problem
        return {
            "case": self.case,
            "outcome": self.outcome,
            "seconds": round(self.seconds, 2),
            "where": "" if problem is None else problem.where,
            "found": "" if problem is None else problem.found,
            "expected": "" if problem is None else problem.expected,
            "mend": "" if problem is None else problem.mend,
        }


def log_told(told: Told) -> None:
    """Tell a log what became of a case."""
    if told.problem is None:
        log.info("%s: %s in %.1f s", told.case, told.outcome, told.seconds)
    else:
        log.warning("%s is left out: %s", told.case, told.problem)


def write_outcomes(path: Path, records: Sequence[Mapping[str, Any]]) -> None:
    """Write a table of what became of cases (``Told.as_record``), sorted by name."""
    with whole(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as stream:
        lines = csv.DictWriter(stream, COLUMNS, delimiter="\t", lineterminator="\n")
        lines.writeheader()
        lines.writerows(sorted(records, key=lambda record: str(record["case"])))


def refuse_bad(table: Path) -> None:
    """Make sure that all cases of ``write_outcomes`` were predicted.

    Raises:
        BadCases: naming those that were not.
    """
    with table.open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream, delimiter="\t"))
    problems = {
        row["case"]: InputError(row["where"], row["found"], row["expected"], row["mend"])
        for row in rows
        if row["outcome"] == "bad"
    }
    log.info("%d of %d cases are predicted", len(rows) - len(problems), len(rows))
    if problems:
        raise BadCases(
            table,
            problems,
            "then call `snakemake predict` again, with `--forcerun predict_batch` where no scan "
            "has changed",
        )
