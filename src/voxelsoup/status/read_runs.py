"""Reads what runs write while they write it, and asks Slurm what only it knows.

Thousands of runs are looked at in a second or two, perhaps on a file server: folders are listed
once, small files are read once, and nothing of what torch needs is imported.
"""

from __future__ import annotations

import csv
import math
import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean

from voxelsoup.common.errors import FINAL as ENDS_FOR_GOOD
from voxelsoup.common.files import read_json
from voxelsoup.common.logs import read_error
from voxelsoup.runs.divergence import DivergedTrial, divergence_of
from voxelsoup.runs.final_plan import trials_of_final
from voxelsoup.runs.invocation import read_invocation
from voxelsoup.runs.lease import is_alive, look_at
from voxelsoup.runs.record import read_record, read_result
from voxelsoup.runs.run_state import Circumstances, Queue, RunFacts
from voxelsoup.status.rows import name_of_run
from voxelsoup.status.slurm_jobs import ask_slurm
from voxelsoup.study.configurations import FIRST
from voxelsoup.study.ingredients import models_of
from voxelsoup.study.sections.soup import FINISHED, FINISHED_BEST
from voxelsoup.study.study import (
    FINAL,
    LONG_RUN,
    Study,
    finish_epochs,
    finish_runs,
)
from voxelsoup.study.trials import Trial, long_run_epochs, trials

HISTORY = "history.csv"
# The end of a log has what ended the run, in bytes.
LOG_END = 4000


@dataclass(frozen=True)
class KnownRun:
    """A run of the study and where its files lie.

    Attributes:
        run: ``stem``, the id of the trial, or ``finish/<model>/<learning rate>``.
        trial: None for a stem or a finish.
        epochs: that it is to have.
        folder: its results.
        states: where its states, its lease and its record lie.
        models: folders of the models that it leaves, in ``folder``; `""` is its own.
        rungs: folders of its scores at the rungs of a halving, and its logs up to there.
        recipe: of a finish, the file that says which one of its fold was chosen, and by what.
        configuration: that it is of; empty for the study's first one.
    """

    fold: int
    run: str
    trial: Trial | None
    epochs: int
    folder: str
    states: str
    log: str
    models: tuple[str, ...]
    rungs: tuple[tuple[str, str], ...] = ()
    recipe: str = ""
    configuration: str = ""

    @property
    def newest_log(self) -> str:
        """The log of its last attempt: up to a rung, or of the complete run."""
        logs = [self.log, *(log for _, log in reversed(self.rungs))]
        return next((log for log in logs if Path(log).exists()), self.log)

    @property
    def name(self) -> str:
        """As ``fold0/stem``; of another configuration than the first, ``wide/fold0/stem``."""
        return name_of_run(self.configuration, self.fold, self.run)


def runs_of_configurations(studies: Mapping[str, Study]) -> list[KnownRun]:
    """All runs of a study's configurations, one after the other (``known_runs``)."""
    return [
        replace(run, configuration="" if name == FIRST else name)
        for name, study in studies.items()
        for run in known_runs(study, trials(study))
    ]


def known_runs(study: Study, of_study: Sequence[Trial]) -> list[KnownRun]:
    """All runs of a study: folds in order; stem, trials in the order of the study, finishes."""
    found = []
    results = study.results
    rungs = range(1, study.sweep.halving.rungs if study.sweep.halving else 1)
    for fold in study.folds.numbers:
        states, logs = f"{results}/.state/fold{fold}", f"{results}/logs/fold{fold}"
        if study.stem.source == "train":
            places = (f"{results}/fold{fold}/stem", f"{states}/stem", f"{logs}/stem.log")
            found.append(KnownRun(fold, "stem", None, study.stem.epochs, *places, ("",)))
        for trial in of_study:
            run = f"trials/{trial.id}"
            places = (f"{results}/fold{fold}/{run}", f"{states}/{run}", f"{logs}/{run}.log")
            models = tuple(model.partition("/")[2] for model in models_of(trial))
            epochs = trial.study.training.epochs
            ways = tuple(
                (f"{results}/fold{fold}/rungs/{n}/{trial.id}", f"{logs}/rungs/{n}/{trial.id}.log")
                for n in rungs
            )
            found.append(KnownRun(fold, trial.id, trial, epochs, *places, models, ways))
        for run in finish_runs(study):
            places = (f"{results}/fold{fold}/{run}", f"{states}/{run}", f"{logs}/{run}.log")
            model = FINISHED_BEST if run.split("/")[1] == "best" else FINISHED
            recipe = f"{results}/fold{fold}/soups/{model}/recipe.json"
            epochs = finish_epochs(study)
            found.append(KnownRun(fold, run, None, epochs, *places, ("",), recipe=recipe))
        if study.comparison.long_run:
            folder, log = f"{results}/fold{fold}/soups/{LONG_RUN}", f"{logs}/soups/{LONG_RUN}.log"
            places = (folder, f"{states}/{LONG_RUN}", log)
            epochs = long_run_epochs(study, of_study)
            found.append(KnownRun(fold, LONG_RUN, None, epochs, *places, ("",)))
    return [*found, *_runs_of_final(study, of_study)] if study.final else found


def _runs_of_final(study: Study, of_study: Sequence[Trial]) -> list[KnownRun]:
    """The runs of the final model: of its trials those that the folds have chosen so far."""
    results, states, logs = (f"{study.results}{part}" for part in ("", "/.state", "/logs"))

    def known(run: str, trial: Trial | None, epochs: int, place: str) -> KnownRun:
        of_final = f"final/{place}"
        places = (f"{results}/{of_final}", f"{states}/{of_final}", f"{logs}/{of_final}.log")
        return KnownRun(FINAL, run, trial, epochs, *places, ("",))

    found = []
    if study.stem.source == "train":
        found.append(known("stem", None, study.stem.epochs, "stem"))
    chosen = trials_of_final(Path(results))
    for trial in (trial for trial in of_study if trial.id in chosen):
        found.append(known(trial.id, trial, trial.study.training.epochs, f"trials/{trial.id}"))
    if study.soup.finish is not None:
        found.append(known("finish", None, finish_epochs(study), "finish"))
    return found


def read_facts(
    run: KnownRun, dropped_after: int | None = None, diverged: DivergedTrial | None = None
) -> RunFacts:
    """What is known of a run; what is just being written counts as not there yet.

    ``diverged``: where it did on the way to a rung.
    """
    record = read_record(run.states)
    if record is not None:
        # Not shown, and of thousands of runs it is most of what their records hold.
        record.saved = None
    over = record is not None and record.state == "finished" and record.epoch == run.epochs
    if over:
        # A rule's output, which Snakemake removes before it makes it again.
        done = os.path.exists(f"{run.folder}/run.json")  # noqa: PTH110
    else:
        done = read_result(run.folder).get("epochs") == run.epochs
        diverged = (divergence_of(run.fold, Path(run.folder)) if done else None) or diverged
    at_rungs = dropped_after, diverged
    lease = None if over and done else look_at(run.states)
    if done or record is not None:
        stopped = not done and record is not None and record.state == "stopped"
        ended = read_error(run.newest_log) if stopped else None
        for_good = ended is not None and ended.kind in ENDS_FOR_GOOD
        return RunFacts(run.name, run.epochs, done, record, lease, False, None, *at_rungs, for_good)
    began, error = Path(run.newest_log).exists(), read_error(run.newest_log)
    return RunFacts(run.name, run.epochs, False, None, lease, began, error, *at_rungs)


def read_end(path: str, size: int = LOG_END) -> str:
    """The end of a text file, so many bytes of it; empty if there is none."""
    try:
        with Path(path).open("rb") as stream:
            stream.seek(max(0, stream.seek(0, os.SEEK_END) - size))
            return stream.read().decode("utf-8", errors="replace")
    except OSError:
        return ""


def read_losses(run: KnownRun) -> list[float]:
    """Mean training loss of every epoch done."""
    for folder in (run.states, run.folder):
        with suppress(OSError, ValueError), Path(folder, HISTORY).open(encoding="utf-8") as stream:
            losses = [row.get("training_loss") for row in csv.DictReader(stream)]
            if losses:
                # That of the epoch in which a run diverged is NaN.
                return [float(loss) for loss in losses if loss and loss != "nan"]
    return []


def read_choice(run: KnownRun) -> tuple[float | None, str]:
    """Selection score of a finish, and what became of it, in words; nothing before it is known."""
    try:
        finish = read_json(Path(run.recipe))["finish"]
        rate = float(Path(run.run).name)
        (one,) = (one for one in finish["tried"] if one["lr"] == rate)
        chosen = ["chosen"] if finish["lr"] == rate else []
        taken = [f"as {one['taken_from']}"] if "taken_from" in one else []
        return one["selection_score"], ", ".join(chosen + taken)
    except (OSError, ValueError, KeyError, TypeError):
        # It is being written, or a version wrote it that knew less.
        return None, ""


class Scores:
    """Selection scores of models, each file read once as long as it does not change.

    ``regions``: their number; None where some are not annotated in all cases.
    """

    def __init__(self, regions: int | None) -> None:
        self._regions = regions
        self._known: dict[str, tuple[int, tuple[float, float] | None]] = {}

    def best(self, run: KnownRun) -> tuple[float, float] | None:
        """Mean Dice and mean loss of a run's best model so far on its selection cases."""
        folders = [f"{run.folder}/{model}" for model in run.models]
        folders += [scored for scored, _ in run.rungs]
        scores = [self._of(f"{folder}/selection.csv") for folder in folders]
        return max(filter(None, scores), default=None)

    def _of(self, path: str) -> tuple[float, float] | None:
        try:
            with open(path, encoding="utf-8", newline="") as stream:  # noqa: PTH123
                date = os.fstat(stream.fileno()).st_mtime_ns
                if path not in self._known or self._known[path][0] != date:
                    self._known[path] = (date, _mean_scores(stream.read(), self._regions))
        except (OSError, ValueError, csv.Error):
            return None
        return self._known[path][1]


def _mean_scores(text: str, regions: int | None) -> tuple[float, float] | None:
    """Mean Dice and mean loss of per-case scores.

    Every case has a row for every region, one after the other, so that the mean over the rows is
    the mean over the regions of the mean over the cases (``case_scores.mean_dice``), and a case's
    loss stands in each of its rows. ``regions`` is their number; None where some cases have fewer.
    """
    columns = _columns(text)
    if not columns.get("dice") or not columns.get("loss"):
        return None
    if regions is None:
        return _means_by_region(columns)
    dice, losses = columns["dice"], columns["loss"][::regions]
    return math.fsum(map(float, dice)) / len(dice), math.fsum(map(float, losses)) / len(losses)


def _means_by_region(columns: Mapping[str, Sequence[str]]) -> tuple[float, float]:
    """The same where some regions are not annotated in some cases, and have no row there."""
    by_region: defaultdict[str, list[float]] = defaultdict(list)
    for region, value in zip(columns["region"], columns["dice"], strict=True):
        by_region[region].append(float(value))
    by_case = dict(zip(columns["case"], map(float, columns["loss"]), strict=True))
    return fmean(map(fmean, by_region.values())), fmean(by_case.values())


def _columns(text: str) -> dict[str, Sequence[str]]:
    """The columns of a CSV file; of one that ends in the middle of a row, none."""
    head, _, body = text.partition("\n")
    names = head.split(",")
    # Half of the time of a look at thousands of runs goes into these files. Only names of cases
    # with commas in them are quoted, and hardly any case has such a name.
    if '"' not in text and text.endswith("\n"):
        fields = body.replace("\n", ",").split(",")[:-1]
        if len(fields) % len(names) == 0:
            return {name: fields[place :: len(names)] for place, name in enumerate(names)}
    rows = list(csv.reader(text.splitlines()))
    return dict(zip(names, zip(*rows[1:], strict=True), strict=True))


def circumstances(study: Study, facts: Sequence[RunFacts], now: float) -> Circumstances:
    """What is the same for all runs; asks Slurm if it has jobs of the study.

    ``now`` is the file server's time before the facts were read: thousands take a while.
    """
    folder = Path(study.results, ".state")
    snakemake, seconds = read_invocation(folder), study.recovery.lease_seconds
    lives = is_alive(look_at(folder), now, seconds)
    queue = Queue()
    if snakemake is not None and snakemake.executor == "slurm" and not all(f.done for f in facts):
        # Of the others the controller's own memory will do.
        open_jobs = [fact.job for fact in facts if fact.job is not None and not fact.done]
        queue = ask_slurm(snakemake.slurm_names, open_jobs)
    return Circumstances(now, seconds, snakemake, lives, queue)
