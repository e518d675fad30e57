"""What became of each case that was to be predicted, in words and as a table."""

from __future__ import annotations

import csv
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, Literal

from voxelsoup.common.errors import BadCases, InputError
from voxelsoup.common.files import atomic_write, read_json

log = logging.getLogger(__name__)

COLUMNS = ["case", "outcome", "seconds", "where", "found", "expected", "fix"]
PROBABILITIES = "probabilities"
ENDING = ".nii.gz"

Outcome = Literal["predicted", "kept", "bad"]


@dataclass(frozen=True)
class CaseOutcome:
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
            "fix": "" if problem is None else problem.fix,
        }


def log_told(told: CaseOutcome) -> None:
    """Tell a log what became of a case."""
    if told.problem is None:
        log.info("%s: %s in %.1f s", told.case, told.outcome, told.seconds)
    else:
        log.warning("%s is left out: %s", told.case, told.problem)


def write_outcomes(path: Path, records: Sequence[Mapping[str, Any]]) -> None:
    """Write a table of what became of cases (``CaseOutcome.as_record``), sorted by name."""
    with (
        atomic_write(path) as temporary,
        temporary.open("w", newline="", encoding="utf-8") as stream,
    ):
        lines = csv.DictWriter(stream, COLUMNS, delimiter="\t", lineterminator="\n")
        lines.writeheader()
        lines.writerows(sorted(records, key=lambda record: str(record["case"])))


def files_of_prediction(folder: Path, case: str, probabilities: bool = False) -> list[Path]:
    """The label map of a case, and its probabilities if they are wanted."""
    name = f"{case}{ENDING}"
    return [folder / name] + [folder / PROBABILITIES / name] * probabilities


def forget_lost(
    table: Path, batches: Iterable[Path], folder: Path, probabilities: bool = False
) -> None:
    """Remove what is written down of batches that have lost files, and the table made of it.

    Args:
        table: what became of all cases (``write_outcomes``).
        batches: what became of the cases of each (``CaseOutcome.as_record``).
        folder: where label maps went.
        probabilities: whether probabilities are wanted too.
    """
    for batch in batches:
        cases = [record["case"] for record in read_json(batch) if record["outcome"] != "bad"]
        files = [files_of_prediction(folder, case, probabilities) for case in cases]
        if not all(file.exists() for file in chain(*files)):
            # Snakemake makes a missing batch again only where the table is missing too.
            table.unlink(missing_ok=True)
            batch.unlink(missing_ok=True)


def refuse_bad(table: Path) -> None:
    """Make sure that all cases of ``write_outcomes`` were predicted.

    Raises:
        BadCases: naming those that were not.
    """
    with table.open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream, delimiter="\t"))
    problems = {
        row["case"]: InputError(row["where"], row["found"], row["expected"], row["fix"])
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
