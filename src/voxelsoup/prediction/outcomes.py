"""The outcome of each case that was to be predicted, in words and as a table."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, Literal

from voxelsoup.common.errors import FORMER_FIX, PARTS, BadCases, InputError
from voxelsoup.common.files import read_json, read_tsv, write_tsv

log = logging.getLogger(__name__)

COLUMNS = ["case", "outcome", "seconds", *PARTS]
PROBABILITIES = "probabilities"
ENDING = ".nii.gz"

Outcome = Literal["predicted", "kept", "bad"]


@dataclass(frozen=True)
class CaseOutcome:
    """What became of a case: `predicted`, `kept` from before, or `bad` because of a problem.

    ``notes``: what was handled in its files when it was predicted, in words.
    """

    case: str
    outcome: Outcome
    seconds: float
    problem: InputError | None = None
    notes: tuple[str, ...] = ()

    def as_record(self) -> dict[str, Any]:
        """The same for a JSON file or a row of a table."""
        problem = dict.fromkeys(PARTS, "") if self.problem is None else self.problem.as_record()
        seconds = round(self.seconds, 2)
        return {"case": self.case, "outcome": self.outcome, "seconds": seconds, **problem}


def log_outcome(outcome: CaseOutcome) -> None:
    """Log what became of a case."""
    for note in outcome.notes:
        log.warning("%s: %s", outcome.case, note)
    if outcome.problem is None:
        log.info("%s: %s in %.1f s", outcome.case, outcome.outcome, outcome.seconds)
    else:
        log.warning("%s is left out: %s", outcome.case, outcome.problem)


def write_outcomes(path: Path, records: Sequence[Mapping[str, Any]]) -> None:
    """Write a table of what became of cases (``CaseOutcome.as_record``), sorted by name."""
    rows = [
        {column: record[column if column in record else FORMER_FIX] for column in COLUMNS}
        for record in sorted(records, key=lambda record: str(record["case"]))
    ]
    write_tsv(path, COLUMNS, rows)


def files_of_prediction(folder: Path, case: str, probabilities: bool = False) -> list[Path]:
    """The label map of a case, and its probabilities if they are asked for."""
    name = f"{case}{ENDING}"
    return [folder / name] + [folder / PROBABILITIES / name] * probabilities


def forget_lost(
    table: Path, batches: Iterable[Path], folder: Path, probabilities: bool = False
) -> None:
    """Remove the records of batches that have lost files, and the table made from them.

    ``table`` has the outcomes of all cases (``write_outcomes``), each of ``batches`` the records of
    its own (``CaseOutcome.as_record``); label maps lie in ``folder``.
    """
    for batch in batches:
        cases = [record["case"] for record in read_json(batch) if record["outcome"] != "bad"]
        files = [files_of_prediction(folder, case, probabilities) for case in cases]
        if not all(file.exists() for file in chain(*files)):
            # Snakemake makes a missing batch again only where the table is missing too.
            table.unlink(missing_ok=True)
            batch.unlink(missing_ok=True)


def refuse_bad(table: Path) -> None:
    """Raise ``BadCases`` if some cases of a table (``write_outcomes``) were not predicted."""
    rows = read_tsv(table)
    problems = {row["case"]: InputError.from_record(row) for row in rows if row["outcome"] == "bad"}
    log.info("%d of %d cases are predicted", len(rows) - len(problems), len(rows))
    if problems:
        raise BadCases(
            table,
            problems,
            "then call `snakemake predict` again, with `--forcerun predict_batch` where no scan "
            "has changed",
        )
