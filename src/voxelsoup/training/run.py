"""From the study to the runs of a fold: its stem and its trials."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from voxelsoup.common.code_version import module_hashes
from voxelsoup.common.provenance import data_fingerprint, hash_of_weights
from voxelsoup.common.text import counted, times
from voxelsoup.data.preprocessing.intensities import with_intensities
from voxelsoup.study.ingredients import checkpoint_steps
from voxelsoup.study.plug_ins import code_of_training
from voxelsoup.study.sections.soup import Finish, WeightsKind
from voxelsoup.study.sections.training import Optimizer
from voxelsoup.study.study import Study, finish_epochs
from voxelsoup.study.trials import Trial, long_run_epochs
from voxelsoup.training.targets import EnsembleTargets

# A run must not see the patches of what it starts from again in the same order.
STEM_STAGE, TRIAL_STAGE, FINISH_STAGE, LONG_STAGE = 0, 1, 2, 3

# Where a run trains and how it reads its patches does not change what it computes; its length
# is an attribute of its own, and a stem's differs from that of the trials. Checkpoints do not
# change it either, but a run that has passed some without keeping them is of no use.
NOT_RESULT = (
    "device", "workers", "watchdog", "epochs", "checkpoints", "gradient_checkpointing",
)  # fmt: skip
# What the data set says of voxels whose ground truth is not known, where it says so.
NOT_ANNOTATED = ("ignore_label",)
# Settings that came later, and the value by which runs of before are the same.
CAME_LATER = {"channels_last": "auto", "compile": False}


@dataclass(frozen=True)
class Run:
    """What one run trains.

    Attributes:
        study: the study with the run's own settings in place.
        optimizer: its optimizer (a stem may have another one than the trials).
        seed: seeds of its patches and augmentation; the first also of its initial weights.
        cases: names of its training cases, which are preprocessed in ``folder``.
        initial: model file to start from, or None for random weights.
        checkpoints: number of checkpoints along it, the last one at its end.
        weights: kinds of weights that are kept of each.
        pause_after: epochs after which it stops for now, to be continued; None goes to its end.
        targets: probabilities of an ensemble to train towards as well; None: labels alone.
    """

    study: Study
    optimizer: Optimizer
    epochs: int
    seed: tuple[int, ...]
    cases: list[str]
    folder: Path
    initial: Path | None
    checkpoints: int = 1
    weights: tuple[WeightsKind, ...] = ("averaged",)
    pause_after: int | None = None
    targets: EnsembleTargets | None = None

    @property
    def steps(self) -> int:
        """Optimizer steps of the whole run."""
        return self.epochs * self.study.training.steps_per_epoch

    @property
    def last_step(self) -> int:
        """The step after which it stops: its last one, or where it pauses."""
        epochs = self.epochs if self.pause_after is None else self.pause_after
        return epochs * self.study.training.steps_per_epoch

    def __str__(self) -> str:
        """What it trains on what, in one line for people."""
        training = self.study.training
        length = f"{counted(self.epochs, 'epoch')} of {counted(training.steps_per_epoch, 'step')}"
        if self.pause_after is not None:
            length += f", pausing after epoch {self.pause_after}"
        batch = f"batch {training.batch_size}, patch {times(training.patch)}"
        start = f", starting from {self.initial}" if self.initial else ""
        return f"{length}, {batch}, {counted(len(self.cases), 'training case')}{start}"

    def settings(self) -> dict[str, Any]:
        """The settings that its result depends on, with all defaults."""
        settings = run_settings(
            self.study, self.optimizer, self.epochs, self.checkpoints, self.weights
        )
        return settings | _of_targets(self.targets.share if self.targets else 0.0)


@dataclass(frozen=True)
class Job:
    """One attempt at a run: its identity in the study, and where it reads and writes.

    Attributes:
        name: `stem`, or the trial's id; ``label`` is what people call it.
        parameters: swept dotted key -> value.
        identity: everything that the run's result depends on (``run_identity``).
        states: where the run's lease, states and record lie.
        events: where TensorBoard's events go, if anywhere.
        threads: CPU threads, of all its processes together.
        place: what people call the place of the run; empty: its fold.
    """

    run: Run
    fold: int
    name: str
    label: str
    parameters: dict[str, Any]
    identity: dict[str, Any]
    states: Path
    events: Path | None
    log: Path
    threads: int
    place: str = ""

    @property
    def processes(self) -> int:
        """How many processes train it: one for each GPU that a run may use."""
        return max(1, self.run.study.resources.training.gpu)

    def __str__(self) -> str:
        return f"{self.place or f'fold {self.fold}'}, {self.label}"


def run_settings(
    study: Study,
    optimizer: Optimizer,
    epochs: int,
    checkpoints: int = 1,
    weights: Sequence[WeightsKind] = ("averaged",),
) -> dict[str, Any]:
    """The settings that a run's result depends on, with all defaults.

    A schedule-free run of more epochs begins with the very steps of a shorter one, so that its
    length is no setting of what it computes; a scheduled run's first step depends on it.
    """
    content = study.model_dump(mode="json")
    shared = {key: content[key] for key in ("preprocess", "network")}
    # They follow from the cases, whose fingerprints also depend on those that a study states.
    shared["preprocess"].pop("intensities", None)
    shared |= {key: content["dataset"][key] for key in NOT_ANNOTATED if key in content["dataset"]}
    if study.dataset.accept.dropout:
        shared["channel_dropout"] = study.dataset.accept.dropout
    training = {
        key: value
        for key, value in content["training"].items()
        if key not in NOT_RESULT and (key not in CAME_LATER or value != CAME_LATER[key])
    }
    length = {} if can_continue(optimizer) else {"epochs": epochs}
    early = checkpoint_steps(epochs * study.training.steps_per_epoch, checkpoints)[:-1]
    # What a run keeps at its end can be asked of its last state; what it passes cannot.
    kept = {"checkpoints": {"steps": early, "weights": list(weights)}} if early else {}
    return {
        "channels": content["dataset"]["channels"],
        # A list, for their order is that of the network's outputs.
        "regions": [[name, labels] for name, labels in content["regions"].items()],
        **shared,
        "training": training,
        "optimizer": optimizer.model_dump(mode="json"),
        **length,
        **kept,
    }


def _of_targets(share: float) -> dict[str, Any]:
    return {"finish": {"ensemble_share": share}} if share else {}


def run_identity(run: Run, fingerprints: dict[str, str]) -> dict[str, Any]:
    """Everything that a run's result depends on: a state of another identity is of no use to it.

    ``fingerprints`` are the hashes of the preprocessed cases.
    """
    return {
        "settings": run.settings(),
        "initial": hash_of_weights(run.initial) if run.initial else None,
        "data": data_fingerprint(fingerprints, run.cases),
        "seed": list(run.seed),
        "code": module_hashes(["training"])
        | code_of_training(run.study.network.name, run.study.training.loss),
        **({"targets": run.targets.sha256} if run.targets else {}),
    }


def stem_target(study: Study) -> tuple[int, dict[str, Any]]:
    """Epochs of a study's stems, and the settings that their result depends on."""
    epochs = study.stem.epochs
    return epochs, run_settings(study, stem_optimizer(study), epochs)


def trial_target(study: Study) -> tuple[int, dict[str, Any]]:
    """Epochs of a trial, whose values the study has, and what its result depends on."""
    epochs, count = study.training.epochs, study.training.checkpoints
    return epochs, run_settings(study, study.optimizer, epochs, count, study.soup.weights)


def finish_target(study: Study, rate: float) -> tuple[int, dict[str, Any]]:
    """Epochs of a finish, and the settings that its result depends on.

    Raises:
        ValueError: if the study finishes no model.
    """
    finish, epochs = _finish_of(study), finish_epochs(study)
    settings = run_settings(study, finish_optimizer(study, rate), epochs)
    return epochs, settings | _of_targets(finish.ensemble_share)


def can_continue(optimizer: Optimizer) -> bool:
    """Whether a finished run can be prolonged without starting over."""
    return optimizer.schedule == "schedule-free"


def stem_optimizer(study: Study) -> Optimizer:
    """The optimizer that a study's stems are trained with."""
    return study.stem.optimizer or study.optimizer


def stem_run(study: Study, fold: int, cases: list[str], folder: Path) -> Run:
    """The run that trains the stem of a fold on cases of a folder, from random weights."""
    return Run(
        study=with_intensities(study, cases, folder),
        optimizer=stem_optimizer(study),
        epochs=study.stem.epochs,
        seed=(study.training.seed, fold, STEM_STAGE),
        cases=cases,
        folder=folder,
        initial=None,
    )


def trial_run(trial: Trial, fold: int, cases: list[str], folder: Path, initial: Path | None) -> Run:
    """The run of one trial on a fold, from the stem or a checkpoint if there is one."""
    return Run(
        study=with_intensities(trial.study, cases, folder),
        optimizer=trial.study.optimizer,
        epochs=trial.study.training.epochs,
        seed=(trial.study.training.seed, fold, TRIAL_STAGE),
        cases=cases,
        folder=folder,
        initial=initial,
        checkpoints=trial.study.training.checkpoints,
        weights=tuple(trial.study.soup.weights),
    )


def finish_optimizer(study: Study, rate: float) -> Optimizer:
    """The optimizer of a finish with one of its learning rates."""
    return Optimizer(**_finish_of(study).optimizer.model_dump(), lr=rate)


def finish_run(
    study: Study,
    fold: int,
    cases: list[str],
    folder: Path,
    initial: Path,
    rate: float,
    targets: EnsembleTargets | None,
) -> Run:
    """The run that trains a model of a fold on for a while, with one of the learning rates.

    ``cases`` include those without labels that ``targets`` has a target of.
    """
    labelled = [case for case in cases if targets is None or case not in targets.unlabelled]
    return Run(
        study=with_intensities(study, labelled, folder),
        optimizer=finish_optimizer(study, rate),
        epochs=finish_epochs(study),
        seed=(study.training.seed, fold, FINISH_STAGE),
        cases=cases,
        folder=folder,
        initial=initial,
        targets=targets,
    )


def long_run_target(study: Study, trials: Sequence[Trial]) -> tuple[int, dict[str, Any]]:
    """Epochs of a long run, and the settings that its result depends on."""
    epochs = long_run_epochs(study, trials)
    optimizer = finish_optimizer(study, _finish_of(study).rates[0])
    return epochs, run_settings(study, optimizer, epochs)


def long_run(
    study: Study, trials: Sequence[Trial], fold: int, cases: list[str], folder: Path
) -> Run:
    """The run of a fold from random weights that gets the steps of all others."""
    return Run(
        study=with_intensities(study, cases, folder),
        optimizer=finish_optimizer(study, _finish_of(study).rates[0]),
        epochs=long_run_epochs(study, trials),
        seed=(study.training.seed, fold, LONG_STAGE),
        cases=cases,
        folder=folder,
        initial=None,
    )


def _finish_of(study: Study) -> Finish:
    if study.soup.finish is None:
        raise ValueError("the study finishes no model")
    return study.soup.finish
