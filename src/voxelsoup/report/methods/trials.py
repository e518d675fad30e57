"""What the trials of a study differ in, as a paper tells it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from voxelsoup.common.text import counted, listed
from voxelsoup.study.halving import rung_epochs, share_of_epochs, trials_at_rungs
from voxelsoup.study.sections.sweep import Halving, RandomSamples, SweepBlock
from voxelsoup.study.study import Study
from voxelsoup.study.sweepable import SEED
from voxelsoup.study.trials import Trial, blocks, swept_keys

Cite = Callable[[str], str]
OPTIMIZERS = {"adamw": "AdamW", "sgd": "stochastic gradient descent", "radam": "RAdam"}
SETTING_NAMES = {
    "optimizer.name": "optimizer",
    "optimizer.schedule": "learning-rate schedule",
    "optimizer.lr": "learning rate",
    "optimizer.weight_decay": "weight decay",
    "optimizer.momentum": "momentum",
    "optimizer.second_beta": "second beta",
    "optimizer.warmup_steps": "number of warm-up steps",
    "optimizer.restarts": "number of cosine periods",
    "optimizer.power": "power of the polynomial",
    "optimizer.milestones": "milestones",
    "optimizer.gamma": "factor at the milestones",
    "training.batch_size": "batch size",
    "training.epochs": "number of epochs",
    "training.steps_per_epoch": "steps per epoch",
    "training.foreground_share": "share of patches centred on a labelled voxel",
    "training.augmentation": "augmentation",
    "training.loss": "loss",
    "training.loss_over": "extent of the Dice loss",
    "training.deep_supervision_weights": "weights of the deep supervision",
    "training.gradient_clip": "largest norm of the gradient",
    "training.precision": "precision",
    SEED: "random seed",
}
VALUE_NAMES: dict[str, dict[str, str]] = {
    "optimizer.name": OPTIMIZERS,
    "optimizer.schedule": {
        "schedule-free": "schedule-free",
        "constant": "a constant rate",
        "cosine": "cosine annealing",
        "cosine-warmup": "cosine annealing after warm-up",
        "cosine-warmup-restarts": "cosine annealing with warm restarts",
        "polynomial": "polynomial decay",
        "multi-step": "multi-step decay",
    },
    "training.loss": {
        "dice": "Dice",
        "dice-bce": "Dice with binary cross-entropy",
        "dice-focal": "Dice with focal loss",
    },
}
CITED = ("schedule-free", "adamw", "radam")
# More single combinations than these are counted instead of listed.
LISTED_COMBINATIONS = 6


def setting_name(key: str) -> str:
    """What a paper calls a dotted key."""
    return SETTING_NAMES.get(key, key)


def shown_value(value: Any) -> str:
    """A number, a text or a list of them, without needless digits."""
    if value is None:
        return "not set"
    if isinstance(value, list):
        return "(" + ", ".join(map(shown_value, value)) + ")"
    return f"{value:g}" if isinstance(value, float) else str(value)


def sweep_sentence(study: Study, trials: Sequence[Trial], folds: int, cite: Cite) -> str:
    """Tell which trials there were and how many models they make.

    Args:
        study: the study.
        trials: all of its trials.
        folds: the number of folds that were run.
        cite: how what stands for another paper is cited; nothing where it gives no text.
    """
    models = counted(len(trials) * folds, "trained model")
    if len(trials) == 1:
        own = {k: v for k, v in trials[0].parameters.items() if k != SEED}
        seed = f"seed {trials[0].study.training.seed}"
        settings = ", ".join([*_settings(own, cite), seed])
        return f"One trial was trained per fold ({settings}), {models} in all."
    covered = ", and in addition ".join(_block(study, block, cite) for _, block in blocks(study))
    total = f", {models} in all" if study.sweep.halving is None else ""
    sentence = f"The trials covered {covered}: {counted(len(trials), 'trial')} per fold{total}."
    if study.sweep.halving is not None:
        sentence += f" {_halving(study, study.sweep.halving, len(trials), folds, cite)}"
    if SEED not in swept_keys(trials):
        sentence += f" All trials had the random seed {study.training.seed}."
    return sentence


def _halving(study: Study, halving: Halving, count: int, folds: int, cite: Cite) -> str:
    """Which trials went on after each rung, and how many models came of them."""
    ends = rung_epochs(halving, study.training.epochs)
    counts = trials_at_rungs(halving, count)
    on = [f"{best} to epoch {end}" for best, end in zip(counts[1:], ends[1:], strict=True)]
    share = share_of_epochs(halving, study.training.epochs, count)
    name = f"successive halving {cite('halving')}".rstrip()
    return (
        f"By {name}, all trials of a fold were trained to epoch {ends[0]}, and of these, by their "
        f"mean Dice on the selection cases, the best {', then '.join(on)}: "
        f"{counted(counts[-1] * folds, 'model')} trained to the end, with {100 * share:.0f} % of "
        "the epochs that all trials would have taken."
    )


def _block(study: Study, block: SweepBlock, cite: Cite) -> str:
    """What one block of the sweep names."""
    named = [_axes(block, cite)] if block.axis_keys else []
    named += [_single(block.trials, cite)] if block.trials else []
    text = listed(named) if named else "the settings above"
    if block.repeats > 1:
        first = study.training.seed
        last = first + block.repeats - 1
        seeds = f"{first} {'and' if block.repeats == 2 else 'to'} {last}"
        text += f", each with {block.repeats} random seeds ({seeds})"
    if block.exclude:
        left_out = listed((_exclusion(entry, cite) for entry in block.exclude), "or")
        text += f", without those with {left_out}"
    return text


def _axes(block: SweepBlock, cite: Cite) -> str:
    axes = [
        f"{setting_name(key)} ({listed(_value(key, value, cite) for value in values)})"
        for key, values in block.grid.items()
    ]
    for together in block.zip:
        names = " with ".join(setting_name(key) for key in together)
        rows = [
            " with ".join(
                _value(key, value, cite) for key, value in zip(together, row, strict=True)
            )
            for row in zip(*together.values(), strict=True)
        ]
        axes.append(f"{names} ({listed(rows)})")
    random = _random(block.random, cite) if block.random else ""
    if not axes:
        return random
    text = f"all {'values' if len(axes) == 1 else 'combinations'} of {listed(axes)}"
    return f"{text}, each with {random}" if random else text


def _random(asked: RandomSamples, cite: Cite) -> str:
    drawn = []
    for key, axis in asked.axes.items():
        ((distribution, values),) = axis.items()
        if distribution == "choice":
            shown = listed((_value(key, value, cite) for value in values), "or")
            drawn.append(f"{setting_name(key)} ({shown}, equally likely)")
        else:
            low, high = map(shown_value, values)
            drawn.append(f"{setting_name(key)} ({distribution} from {low} to {high})")
    return f"{counted(asked.count, 'random sample')} (seed {asked.seed}) of {listed(drawn)}"


def _single(trials: Sequence[Mapping[str, Any]], cite: Cite) -> str:
    count = counted(len(trials), "given combination")
    if len(trials) > LISTED_COMBINATIONS:
        keys = dict.fromkeys(key for trial in trials for key in trial)
        return f"{count} of {listed(map(setting_name, keys))}"
    shown = [" with ".join(_settings(trial, cite)) or "the settings above" for trial in trials]
    return f"{count} ({listed(shown)})"


def _settings(values: Mapping[str, Any], cite: Cite) -> list[str]:
    return [f"{setting_name(key)} {_value(key, value, cite)}" for key, value in values.items()]


def _exclusion(entry: Mapping[str, Any], cite: Cite) -> str:
    parts = []
    for key, wanted in entry.items():
        if isinstance(wanted, dict):
            ends = listed(f"{side} {end}" for side, end in wanted.items())
            parts.append(f"{setting_name(key)} {ends}")
        else:
            values = wanted if isinstance(wanted, list) else [wanted]
            shown = listed((_value(key, value, cite) for value in values), "or")
            parts.append(f"{setting_name(key)} {shown}")
    return " and ".join(parts)


def _value(key: str, value: Any, cite: Cite) -> str:
    """A swept value; what stands for another paper is cited."""
    name = VALUE_NAMES.get(key, {}).get(str(value), shown_value(value))
    return f"{name} {cite(value)}".rstrip() if value in CITED else name
