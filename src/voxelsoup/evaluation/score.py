"""A model scored on whole cases: one row per case and region."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Collection, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import nn

from voxelsoup.data.preprocessing.geometry import restore
from voxelsoup.data.preprocessing.intensities import rescale
from voxelsoup.data.preprocessing.store import PreprocessedCase, load_case, load_ground_truth
from voxelsoup.data.regions import UNKNOWN, label_table, to_regions
from voxelsoup.evaluation.case_scores import COLUMNS
from voxelsoup.evaluation.metrics import Scoring, diagonal, score_regions, scoring_of
from voxelsoup.evaluation.postprocessing import Postprocessing
from voxelsoup.evaluation.sliding_window import predict_logits
from voxelsoup.models import devices, networks, weight_files
from voxelsoup.models.losses import make_loss
from voxelsoup.study.study import Study

log = logging.getLogger(__name__)

THRESHOLD = 0.5
# On a CPU, larger batches of windows take longer: their memory is fetched and given back each time.
VOXELS_AT_ONCE = 64**3
DICE_ALONE = Scoring(metrics=())
Rows = list[dict[str, object]]
Scored = TypeVar("Scored")


def load_model(path: Path, study: Study, device: torch.device) -> nn.Module:
    """A study's network with the weights of a model file, in evaluation mode.

    Raises:
        InputError: if the file cannot be read or does not fit the network.
    """
    return model_of(weight_files.load(path)[0], study, device, path)


def model_of(
    weights: weight_files.Weights, study: Study, device: torch.device, where: Path
) -> nn.Module:
    """A study's network with these weights, in evaluation mode.

    Raises:
        InputError: if they do not fit the network; ``where`` says which they are.
    """
    model = networks.build(study.network, len(study.dataset.channels), len(study.regions))
    weight_files.fit(model, weights, where)
    return model.to(device).eval()


def score_cases(
    model: nn.Module,
    cases: Iterable[str],
    folder: Path,
    study: Study,
    device: torch.device,
    measured: Collection[str] = (),
) -> pd.DataFrame:
    """Per-case scores of a model on preprocessed cases, in the voxels of each scan.

    Of ``measured`` cases they hold all metrics of the study, of the others Dice and loss alone.
    """

    def score(scan: ScanPrediction) -> Rows:
        return scan.rows(
            study, scoring_of(study.scored_metrics) if scan.case in measured else DICE_ALONE
        )

    scored = _score_each(score, model, cases, folder, study, device)
    rows = [row for of_case in scored for row in of_case]
    columns = [*COLUMNS, *(study.metrics.names if measured else [])]
    return pd.DataFrame(rows).reindex(columns=columns)


def score_before_and_after(
    model: nn.Module,
    cases: Iterable[str],
    folder: Path,
    study: Study,
    device: torch.device,
    postprocessing: Postprocessing,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Score a model by all metrics, without and with post-processing, on the same predictions."""

    def score(scan: ScanPrediction) -> tuple[Rows, Rows]:
        scoring = scoring_of(study.scored_metrics)
        return scan.rows(study, scoring), scan.rows(study, scoring, postprocessing)

    pairs = _score_each(score, model, cases, folder, study, device)
    before = [row for plain, _ in pairs for row in plain]
    after = [row for _, processed in pairs for row in processed]
    columns = [*COLUMNS, *study.metrics.names]
    return pd.DataFrame(before, columns=columns), pd.DataFrame(after, columns=columns)


def score_after(
    model: nn.Module,
    cases: Iterable[str],
    folder: Path,
    study: Study,
    device: torch.device,
    postprocessing: Postprocessing,
) -> pd.DataFrame:
    """Score a model by all metrics with post-processing, where its other scores are known."""

    def score(scan: ScanPrediction) -> Rows:
        return scan.rows(study, scoring_of(study.scored_metrics), postprocessing)

    scored = _score_each(score, model, cases, folder, study, device)
    rows = [row for of_case in scored for row in of_case]
    return pd.DataFrame(rows, columns=[*COLUMNS, *study.metrics.names])


def _score_each(
    score: Callable[[ScanPrediction], Scored],
    model: nn.Module,
    cases: Iterable[str],
    folder: Path,
    study: Study,
    device: torch.device,
) -> list[Scored]:
    """Score each prediction while the next one is made; scores in the order of the predictions.

    A GPU does not wait for distances, which no library takes on it, and no more than two
    predictions are held.
    """
    model.eval()
    scores: list[Future[Scored]] = []
    with ThreadPoolExecutor(1) as pool:
        for name in cases:
            scan = prediction_in_the_scan(model, name, folder, study, device)
            if scores:
                scores[-1].result()
            scores.append(pool.submit(score, scan))
    return [done.result() for done in scores]


@dataclass(frozen=True)
class ScanPrediction:
    """A prediction beside the ground truth, in the voxels of the scan.

    Attributes:
        probabilities: float32 (region, x, y, z).
        truth: booleans of the same shape.
        spacing: of the voxels, in mm (x, y, z).
        diagonal: of the whole scan, in mm; the voxels may be those of a crop.
        known: where somebody annotated: booleans (x, y, z), or None: everywhere. Nothing else is
            scored, as if neither model nor annotator had seen the rest.
        not_annotated: regions that nobody annotated in this case: they are empty in ``truth``, and
            have no scores.
    """

    case: str
    probabilities: NDArray[np.float32]
    truth: NDArray[np.bool_]
    spacing: list[float]
    diagonal: float
    loss: float
    known: NDArray[np.bool_] | None = None
    not_annotated: Collection[str] = ()

    def mask(self, postprocessing: Postprocessing | None = None) -> NDArray[np.bool_]:
        """The predicted regions (region, x, y, z)."""
        if postprocessing is None:
            return self.probabilities > THRESHOLD
        return postprocessing.apply(self.probabilities, self.spacing)

    def rows(
        self, study: Study, scoring: Scoring, postprocessing: Postprocessing | None = None
    ) -> Rows:
        """Its per-case scores, one per region that is annotated."""
        if scoring.penalty is None:
            scoring = replace(scoring, penalty=self.diagonal)
        predicted, truth = self.mask(postprocessing), self.truth
        if self.known is not None:
            predicted = predicted & self.known
        regions = [region for region in study.regions if region not in self.not_annotated]
        if self.not_annotated:
            annotated = [region in regions for region in study.regions]
            predicted, truth = predicted[annotated], truth[annotated]
        scores = score_regions(predicted, truth, self.spacing, scoring, torch.get_num_threads())
        mean = sum(score["dice"] for score in scores) / len(scores)
        after = " after post-processing" if postprocessing else ""
        log.info("%s: mean Dice %.4f%s", self.case, mean, after)
        return [
            {"case": self.case, "region": region, "dice": score["dice"], "loss": self.loss} | score
            for region, score in zip(regions, scores, strict=True)
        ]


def score_case(
    model: nn.Module, case: str, folder: Path, study: Study, device: torch.device
) -> Rows:
    """Dice and loss of one case; ``model`` is in evaluation mode."""
    return prediction_in_the_scan(model, case, folder, study, device).rows(study, DICE_ALONE)


def prediction_in_the_scan(
    model: nn.Module, name: str, folder: Path, study: Study, device: torch.device
) -> ScanPrediction:
    """What a model in evaluation mode predicts of a preprocessed case."""
    case = load_case(folder, name)
    return in_the_scan(predict(model, case, study, device), case, folder, study)


def in_the_scan(
    logits: torch.Tensor, case: PreprocessedCase, folder: Path, study: Study
) -> ScanPrediction:
    """A prediction in the scan, from logits (region, x, y, z) on the preprocessed grid."""
    truth, ignored = load_ground_truth(folder, case.name), study.dataset.ignore_label
    hidden = study.not_annotated_in(case.name)
    regions = to_regions(truth, label_table(study.regions))
    regions[[region in hidden for region in study.regions]] = False
    return ScanPrediction(
        case.name,
        restore(torch.sigmoid(logits).cpu().numpy(), case.geometry),
        regions,
        case.geometry["spacing_before"],
        diagonal(case.geometry["ras_shape"], case.geometry["spacing_before"]),
        _loss(logits, case, study),
        None if ignored is None else truth != ignored,
        hidden,
    )


def predict(
    model: nn.Module, case: PreprocessedCase, study: Study, device: torch.device
) -> torch.Tensor:
    """Logits (region, x, y, z), float32, of a whole case by a model in evaluation mode."""
    # In the numbers of the disk, which each window is brought to float32 from.
    voxels, constants = np.array(case.image), study.preprocess.constants(study.dataset.channels)
    if any(constants):
        voxels = voxels.astype(np.float32, copy=False)
        rescale(voxels, constants)
    image = torch.from_numpy(voxels).to(device)
    with devices.autocast(device, study.training.precision):
        return predict_logits(
            model,
            image,
            len(study.regions),
            study.training.patch,
            study.evaluation.overlap,
            _windows_at_once(study, device),
        )


def _windows_at_once(study: Study, device: torch.device) -> int:
    """As the study says; on a CPU no more than pays there."""
    most = study.evaluation.window_batch
    if device.type != "cpu":
        return most
    return max(1, min(most, VOXELS_AT_ONCE // math.prod(study.training.patch)))


def _loss(logits: torch.Tensor, case: PreprocessedCase, study: Study) -> float:
    """The evaluation loss against the label map of a case, on the grid of the logits."""
    label = np.asarray(case.label)
    # Booleans, which are a quarter as much to bring to a GPU.
    target = torch.from_numpy(to_regions(label, label_table(study.regions)))
    regions = target.to(logits.device).float()
    if study.dataset.ignore_label is not None:
        unknown = torch.from_numpy(label == study.dataset.ignore_label)
        regions.masked_fill_(unknown.to(logits.device), UNKNOWN)
    hidden = study.not_annotated_in(case.name)
    for place in (place for place, region in enumerate(study.regions) if region in hidden):
        regions[place] = UNKNOWN
    loss = make_loss(study.evaluation.loss, some_unknown=study.some_unknown([case.name]))
    with torch.no_grad():
        return float(loss(logits[None], regions[None]))
