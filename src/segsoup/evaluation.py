"""A model scored on whole cases: one row per case and region."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import nn

from segsoup import checkpoints, devices, networks
from segsoup.batches import Draw
from segsoup.comparison import mean_dice
from segsoup.inference import predict_logits
from segsoup.losses import make_loss
from segsoup.metrics import dice
from segsoup.preprocess import PreprocessedCase, load_case, load_truth, restore
from segsoup.regions import label_table, to_regions
from segsoup.study import Study
from segsoup.training import estimate_batch_norm

log = logging.getLogger(__name__)

COLUMNS = ["case", "region", "dice", "loss"]
THRESHOLD = 0.5


def load_model(path: Path, study: Study, device: torch.device) -> nn.Module:
    """A study's network with the weights of a model file, in evaluation mode.

    Raises:
        InputError: if the file cannot be read or does not fit the network.
    """
    model = networks.build(study.network, len(study.dataset.channels), len(study.regions))
    checkpoints.fit(model, checkpoints.load(path)[0], path)
    return model.to(device).eval()


class WeightsScorer:
    """Scores weights on the selection cases of one fold: what a soup recipe chooses by."""

    def __init__(
        self, study: Study, fold: dict[str, list[str]], folder: Path, device: torch.device
    ) -> None:
        """Set up.

        Args:
            study: the study.
            fold: names of its `training` and `selection` cases.
            folder: the preprocessed cases.
            device: where to compute.
        """
        self.study, self.fold, self.folder, self.device = study, fold, folder, device
        model = networks.build(study.network, len(study.dataset.channels), len(study.regions))
        self.model = model.to(device)

    def rows(self, weights: checkpoints.Weights) -> pd.DataFrame:
        """Case rows of a model with these weights; running statistics are put into ``weights``."""
        self.model.load_state_dict(weights)
        if networks.has_batch_norm(self.model):
            training = self.study.training
            cases = sorted(self.fold["training"])
            draw = Draw(self.folder, cases, self.study.regions, training, (training.seed,))
            estimate_batch_norm(self.model, draw, self.device)
            weights.update({k: v.cpu().clone() for k, v in self.model.state_dict().items()})
        return score_cases(self.model, self.fold["selection"], self.folder, self.study, self.device)

    def __call__(self, weights: checkpoints.Weights) -> float:
        """Mean selection Dice of a model with these weights."""
        return mean_dice(self.rows(weights))


def score_cases(
    model: nn.Module, cases: Iterable[str], folder: Path, study: Study, device: torch.device
) -> pd.DataFrame:
    """Score a model on preprocessed cases, in the voxels of each scan.

    Args:
        model: with the weights to score, on ``device``.
        cases: names.
        folder: the preprocessed cases.
        study: patch, overlap, regions and evaluation loss.
        device: where to compute.

    Returns:
        Case rows: ``case``, ``region``, ``dice``, and ``loss`` (that of the case, in each row).
    """
    model.eval()
    rows = [row for case in cases for row in score_case(model, case, folder, study, device)]
    return pd.DataFrame(rows, columns=COLUMNS)


def score_case(
    model: nn.Module, case: str, folder: Path, study: Study, device: torch.device
) -> list[dict[str, object]]:
    """Rows of one case; ``model`` is in evaluation mode."""
    preprocessed = load_case(folder, case)
    logits = _predict(model, preprocessed, study, device)
    loss = _loss(logits, preprocessed, study, device)
    probabilities = torch.sigmoid(logits).cpu().numpy()
    prediction = restore(probabilities, preprocessed.geometry) > THRESHOLD
    truth = to_regions(np.asarray(load_truth(folder, case)), label_table(study.regions))
    scores = dice(torch.from_numpy(prediction), torch.from_numpy(truth)).tolist()
    log.info("%s: mean Dice %.4f", case, sum(scores) / len(scores))
    return [
        {"case": case, "region": region, "dice": score, "loss": loss}
        for region, score in zip(study.regions, scores, strict=True)
    ]


def _predict(
    model: nn.Module, case: PreprocessedCase, study: Study, device: torch.device
) -> torch.Tensor:
    image = torch.from_numpy(np.array(case.image, dtype=np.float32)).to(device)
    with devices.autocast(device, study.training.precision):
        return predict_logits(
            model,
            image,
            study.training.patch,
            study.evaluation.overlap,
            study.evaluation.window_batch,
        )


def _loss(
    logits: torch.Tensor, case: PreprocessedCase, study: Study, device: torch.device
) -> float:
    target = to_regions(np.asarray(case.label), label_table(study.regions))
    target_tensor = torch.from_numpy(target.astype(np.float32)).to(device)
    return float(make_loss(study.evaluation.loss)(logits[None], target_tensor[None]))
