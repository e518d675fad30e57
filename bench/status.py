"""What `voxelsoup status` takes for a study of 5,000 runs during its training.

The study is made up: five folds of 999 trials and a stem each, with the files that runs leave. Of
the trials three fifths are done (with scores of 100 cases and three regions), a hundred are at
work, some have failed or were killed, the rest waits. Each figure is the median of several whole
processes, from start to end, with a warm file cache. The last line is one JSON object:

    runs              runs of the study
    seconds           of `voxelsoup status --json` (below 2 is the aim)
    cpu_seconds       of these, those that the process had a core for: what it takes on a machine
                      that is not in use otherwise
    seconds_table     of the plain table, piped
    seconds_terminal  of the table on a terminal of 120 columns
    seconds_again     of a later look within one process, as with --watch
    peak_mb           memory of the process
"""

from __future__ import annotations

import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console
from rich.table import Table

REPOSITORY = Path(__file__).parents[1]
sys.path.insert(0, str(REPOSITORY / "src"))

from voxelsoup.common.errors import ErrorDescription  # noqa: E402
from voxelsoup.runs.lease import Owner  # noqa: E402
from voxelsoup.runs.record import RECORD, Attempt, RunRecord, SavedState  # noqa: E402
from voxelsoup.status.read_runs import KnownRun  # noqa: E402
from voxelsoup.status.study_status import StatusReader  # noqa: E402
from voxelsoup.study.loading import load  # noqa: E402

FOLDS, RATES, SEEDS = 5, 37, 27
CASES, REGIONS = 100, ("TC", "WT", "ET")
EPOCHS, STEPS_PER_EPOCH = 300, 250
AT_WORK, FAILED, KILLED = 100, 20, 5
REPEATS = 5
# Measured in the process itself, at its end.
MEASURED = """
import resource, sys
from voxelsoup.commands.cli import main  # noqa: E402
code = main(sys.argv[1:])
sys.stdout.flush()
used = resource.getrusage(resource.RUSAGE_SELF)
print(used.ru_maxrss * 1024 / 1e6, used.ru_utime + used.ru_stime, file=sys.stderr)
sys.exit(code)
"""


def write_study(folder: Path) -> Path:
    """The shipped study, grown."""
    study = yaml.safe_load((REPOSITORY / "config.yaml").read_text())
    study["folds"] = {"count": FOLDS, "selection_share": 0.2}
    study["training"] |= {"epochs": EPOCHS, "steps_per_epoch": STEPS_PER_EPOCH, "checkpoints": 1}
    study["stem"]["epochs"] = EPOCHS
    study["soup"]["weights"] = ["averaged"]
    rates = [round(0.001 * (number + 1), 4) for number in range(RATES)]
    grid = {"optimizer.lr": rates, "training.seed": list(range(SEEDS))}
    study["sweep"] = {"grid": grid}
    file = folder / "study.yaml"
    file.write_text(yaml.safe_dump(study))
    return file


@cache
def identity() -> dict[str, Any]:
    """As large as that of a run."""
    return {"settings": load(yaml.safe_load((REPOSITORY / "config.yaml").read_text())).model_dump()}


def record(
    state: str, epoch: int, chance: random.Random, stop: ErrorDescription | None = None
) -> RunRecord:
    """What a run of so many epochs says of itself."""
    now = datetime.now(UTC)
    seconds = epoch * chance.uniform(40, 60)
    owner = Owner.this_process()
    attempt = Attempt(
        started=(now - timedelta(seconds=seconds)).isoformat(timespec="milliseconds"),
        owner=owner,
        partition="gpu-short",
        device="NVIDIA H100 80GB HBM3",
        gpu_index=str(chance.randrange(8)),
        to_epoch=epoch,
        ended=None if state == "running" else now.isoformat(timespec="milliseconds"),
        stop=stop,
    )
    return RunRecord(
        state=state,  # type: ignore[arg-type]
        updated=now.isoformat(timespec="milliseconds"),
        steps=EPOCHS * STEPS_PER_EPOCH,
        epoch=epoch,
        step=epoch * STEPS_PER_EPOCH,
        training_loss=chance.uniform(0.2, 0.8),
        lr=0.01,
        seconds_per_epoch=50.0,
        peak_memory_mb=9000.0,
        peak_gpu_memory_mb=30000.0,
        seconds=seconds,
        attempts=[attempt],
        saved=SavedState(identity(), epoch * STEPS_PER_EPOCH),
    )


def write_run(run: KnownRun, known: RunRecord, released: bool) -> None:
    """A run's record and lease."""
    states = Path(run.states)
    states.mkdir(parents=True)
    (states / RECORD).write_text(json.dumps(asdict(known), indent=2))
    owner = known.attempts[0].owner
    (states / "lease.000001").write_text(json.dumps(asdict(owner)))
    for name in ("history.csv", "000000100.state"):
        (states / name).touch()
    if released:
        (states / "lease.000001.released").touch()


def write_results(run: KnownRun, chance: random.Random) -> None:
    """What a run that is done leaves, as far as the status reads it."""
    folder = Path(run.folder)
    folder.mkdir(parents=True)
    (folder / "run.json").write_text(json.dumps({"epochs": run.epochs}))
    rows = ["case,region,dice,loss"]
    for case in range(CASES):
        loss = chance.random()
        rows += [f"BraTS-GLI-{case:05d}-000,{r},{chance.random()},{loss}" for r in REGIONS]
    (folder / "selection.csv").write_text("\n".join(rows) + "\n")


def write_runs(runs: list[KnownRun]) -> None:
    """A study under way."""
    chance = random.Random(0)
    trials = [run for run in runs if run.trial]
    done = [run for run in runs if not run.trial] + trials[: len(trials) * 3 // 5]
    rest = trials[len(trials) * 3 // 5 :]
    for run in done:
        write_run(run, record("finished", EPOCHS, chance), released=True)
        write_results(run, chance)
    for run in rest[:AT_WORK]:
        write_run(run, record("running", chance.randrange(1, EPOCHS), chance), released=False)
    for run in rest[AT_WORK : AT_WORK + FAILED]:
        stop = ErrorDescription("OutOfMemoryError", "CUDA out of memory. Tried to allocate 2 GiB.")
        write_run(run, record("stopped", 3, chance, stop), released=True)
    for run in rest[AT_WORK + FAILED : AT_WORK + FAILED + KILLED]:
        killed = record("running", 7, chance)
        # No job has this number.
        killed.attempts[0].owner = Owner(**(asdict(killed.attempts[0].owner) | {"process": 2**30}))
        write_run(run, killed, released=False)


@dataclass(frozen=True)
class Taken:
    """What a whole process took: seconds, of them on a core, and MB; and what it printed."""

    seconds: float
    cpu_seconds: float
    peak_mb: float
    printed: str


def measured(folder: Path, *options: str, terminal: bool = False) -> Taken:
    """Run the command."""
    command = [sys.executable, "-c", MEASURED, "status", "study.yaml", *options]
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY / "src"), "COLUMNS": "120"}
    if terminal:
        environment["TTY_COMPATIBLE"] = "1"
    began = time.perf_counter()
    result = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=True
    )
    taken = time.perf_counter() - began
    peak_mb, cpu_seconds = map(float, result.stderr.split())
    return Taken(taken, cpu_seconds, peak_mb, result.stdout)


def median(repeat: Callable[[], float]) -> float:
    """The middle one of several measurements."""
    return round(statistics.median(repeat() for _ in range(REPEATS)), 2)


def measure(folder: Path) -> dict[str, Any]:
    """All figures."""
    file = write_study(folder)
    os.chdir(folder)
    reader = StatusReader(Path(file.name))
    write_runs(reader.runs)
    as_json = [measured(folder, "--json") for _ in range(REPEATS)]
    counts = json.loads(as_json[0].printed)["counts"]
    at_work = sum(counts.get(state, 0) for state in ("running", "retrying"))
    assert (at_work, counts["failed"], counts["lost"]) == (AT_WORK, FAILED, KILLED), counts
    reader.look()

    def again() -> float:
        began = time.perf_counter()
        reader.look()
        return time.perf_counter() - began

    return {
        "runs": len(reader.runs),
        "seconds": round(statistics.median(one.seconds for one in as_json), 2),
        "cpu_seconds": round(statistics.median(one.cpu_seconds for one in as_json), 2),
        "seconds_table": median(lambda: measured(folder).seconds),
        "seconds_terminal": median(lambda: measured(folder, terminal=True).seconds),
        "seconds_again": median(again),
        "peak_mb": round(max(one.peak_mb for one in as_json)),
    }


def main() -> None:
    """Measure in a folder of its own, and print."""
    with tempfile.TemporaryDirectory() as name:
        result = measure(Path(name))
    table = Table(title="The status of a study under way")
    table.add_column("what")
    table.add_column("value", justify="right")
    for key, value in result.items():
        table.add_row(key, f"{value:,}")
    Console().print(table)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
