"""What a paper calls the settings that trials may differ in, and their values."""

from __future__ import annotations

from typing import Any

from voxelsoup.common.text import plain
from voxelsoup.study.sweepable import SEED

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


def setting_name(key: str) -> str:
    """What a paper calls a dotted key."""
    return SETTING_NAMES.get(key, key)


def value_name(key: str, value: Any) -> str:
    """What a paper calls a value of a dotted key."""
    return VALUE_NAMES.get(key, {}).get(str(value), plain(value))
