"""Weights scored on single cases of a fold, as the soup recipes ask for it."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import torch

from voxelsoup.common.plug_ins import code_of, uses_plug_in
from voxelsoup.evaluation.case_scores import CaseScore, case_score
from voxelsoup.evaluation.score import score_case
from voxelsoup.models import networks, weight_files
from voxelsoup.study.study import Study
from voxelsoup.training.batch_norm import estimate_batch_norm
from voxelsoup.training.patches import PatchSource
from voxelsoup.training.run import NOT_ANNOTATED


class WeightsScorer:
    """Scores weights on single cases of one fold: what a soup recipe chooses by."""

    def __init__(
        self, study: Study, fold: dict[str, list[str]], folder: Path, device: torch.device
    ) -> None:
        """Running statistics come from the fold's `training` cases."""
        self.study, self.fold, self.folder, self.device = study, fold, folder, device
        model = networks.build(study.network, len(study.dataset.channels), len(study.regions))
        self.model = model.to(device).eval()

    def use(self, weights: weight_files.Weights) -> None:
        """Take these weights from now on, with running statistics of their own if they have any."""
        self.model.load_state_dict(weights)
        if networks.has_batch_norm(self.model):
            seed = (self.study.training.seed,)
            source = PatchSource.of(self.study, self.fold["training"], self.folder, seed)
            estimate_batch_norm(self.model, source, self.device)
            self.model.eval()

    def score(self, case: str) -> CaseScore:
        """Dice per region on one case, and the loss."""
        return case_score(score_case(self.model, case, self.folder, self.study, self.device))

    def batch_norm_re_estimated(self, weights: weight_files.Weights) -> weight_files.Weights:
        """Weights as they are to be saved: with running statistics of their own."""
        if not networks.has_batch_norm(self.model):
            return weights
        self.use(weights)
        return {name: value.cpu().clone() for name, value in self.model.state_dict().items()}


def scoring_context(study: Study, fold: dict[str, list[str]], fingerprints: dict[str, str]) -> str:
    """A hash of what selection scores depend on beside the weights."""
    content = study.model_dump(mode="json")
    training, dataset = content["training"], content["dataset"]
    context = {
        **{key: dataset[key] for key in NOT_ANNOTATED if key in dataset},
        "network": content["network"],
        "regions": list(content["regions"].items()),
        "evaluation": content["evaluation"],
        "patch": training["patch"],
        "precision": training["precision"],
        "selection": {case: fingerprints[case] for case in sorted(fold["selection"])},
        # What running statistics are taken from.
        "training": {case: fingerprints[case] for case in sorted(fold["training"])},
    }
    if uses_plug_in("networks", study.network.name):
        context["code of the network"] = code_of("networks", study.network.name)
    if uses_plug_in("losses", study.evaluation.loss):
        context["code of the loss"] = code_of("losses", study.evaluation.loss)
    return hashlib.sha256(json.dumps(context, sort_keys=True).encode()).hexdigest()
