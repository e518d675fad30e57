"""`configs/metadata.json` of a bundle: what MONAI's schema asks for, and what voxelsoup adds."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from voxelsoup.common import provenance
from voxelsoup.common.text import counted, listed
from voxelsoup.comparison.score_summary import Means
from voxelsoup.data.regions import LabelOrder
from voxelsoup.deploy.winner import Kind
from voxelsoup.evaluation.case_scores import ALL_REGIONS
from voxelsoup.models import weight_files
from voxelsoup.prediction.model_files import Description
from voxelsoup.study.sections.training import ALL_AXES
from voxelsoup.study.study import Study

# Of MONAI's model zoo; `python -m monai.bundle verify_metadata` downloads it.
SCHEMA = (
    "https://github.com/Project-MONAI/MONAI-extra-test-data/releases/download/0.8.1/"
    "meta_schema_20240725.json"
)
# What a bundle runs with besides MONAI, torch and numpy, by the versions of the study.
PACKAGES = ("nibabel", "safetensors")
# Needed only to run it by MONAI: its engines and its command line.
TESTED_WITH = {"pytorch-ignite": "0.5.5", "fire": "0.7.1"}


@dataclass(frozen=True)
class BundleFacts:
    """What is known of a bundle's models besides the study's settings.

    Attributes:
        kind: the kind of model that won; ``kinds``: all that took part.
        results: on the test cases of all folds.
        cases: number of labelled cases.
        accepted: what the study accepted in its cases, in words.
        not_annotated: regions that are not annotated in all cases, in words.
        order: label value that each region writes; None where regions are written as masks.
        ingredients: fold -> number of models that its model was averaged from.
        final: what the final model is and what score is to be expected of it, in sentences; empty
            if the study has none, so that the bundle holds the models of the folds.
        answer: what the primary comparison of the study concludes; empty if it is not known.
        network: the record of the network, if it is of another package (``PlugIn.record``).
    """

    kind: Kind
    kinds: Sequence[Kind]
    results: Means
    cases: int
    patients: int
    order: LabelOrder | None
    ingredients: Mapping[int, int]
    runs_with_monai_alone: bool
    accepted: Sequence[str] = ()
    not_annotated: Sequence[str] = ()
    final: Sequence[str] = ()
    answer: str = ""
    network: Mapping[str, Any] | None = None


def metadata(
    study: Study, description: Description, facts: BundleFacts, hashes: Mapping[str, str]
) -> dict[str, Any]:
    """The content of ``metadata.json``; ``hashes``: file below the bundle -> SHA-256."""
    asked, versions = study.bundle, provenance.versions()
    packages = {name: versions[name] for name in PACKAGES} | TESTED_WITH
    if not facts.runs_with_monai_alone:
        packages["voxelsoup"] = versions["voxelsoup"]
    if facts.network is not None:
        packages[facts.network["package"] or facts.network["object"]] = facts.network["version"]
    channels, regions = listed(description.channels), listed(description.regions)
    mirrored = description.mirror_axes
    return {
        "schema": SCHEMA,
        "version": asked.version,
        "changelog": {asked.version: f"made by voxelsoup {versions['voxelsoup']}"},
        "monai_version": versions["monai"],
        "pytorch_version": versions["torch"],
        "numpy_version": versions["numpy"],
        "required_packages_version": packages,
        "supported_apps": {},
        "name": asked.name,
        "task": f"Segmentation of {regions} in 3D scans ({channels})",
        "description": describe(study, facts),
        "authors": asked.authors,
        "copyright": f"Copyright (c) {asked.authors}",
        "data_source": asked.data_source,
        "data_type": "nibabel",
        "image_classes": f"{counted(len(description.channels), 'channel')}: {channels}",
        "label_classes": label_classes(description, facts.order),
        "pred_classes": f"sigmoid of {counted(len(description.regions), 'region')}: {regions}",
        "eval_metrics": {
            f"{metric}_{region}": interval.mean
            for metric, regions in facts.results.items()
            for region, interval in regions.items()
            # JSON has no NaN.
            if interval.mean == interval.mean
        },
        "intended_use": asked.intended_use,
        "references": [],
        "network_data_format": _tensors(study, description),
        "voxelsoup": {
            "sha256": dict(hashes),
            "licence": asked.licence,
            "commit": provenance.source(),
            "kind": facts.kind.title,
            "selection_scores": {kind.title: kind.score for kind in facts.kinds},
            "protocol": study.evaluation.protocol,
            "channels": list(description.channels),
            "regions": dict(description.regions),
            "label_order": facts.order,
            # Bundles of models that were mirrored along all axes say what they always said.
            **({} if len(mirrored) == len(ALL_AXES) else {"mirror_axes": mirrored}),
            **({} if facts.network is None else {weight_files.NETWORK_FROM: facts.network}),
            "metrics": study.scored_metrics.model_dump(mode="json"),
        },
    }


def describe(study: Study, facts: BundleFacts) -> str:
    """The models in two sentences."""
    folds = study.folds.numbers
    if facts.final:
        return " ".join(facts.final[:2])
    several = (
        f"{len(folds)} models, one of each fold, whose probabilities are averaged"
        if len(folds) > 1
        else f"one model, of fold {folds[0]}"
    )
    scored = facts.results["dice"][ALL_REGIONS]
    return (
        f"{facts.kind.title} of a voxelsoup study: {several}. Mean Dice {scored.mean:.4f} on "
        f"{counted(scored.cases, 'test case')}, each predicted by the model of the fold whose "
        "training and selection never saw it."
        if study.evaluation.protocol == "held-out"
        else f"{facts.kind.title} of a voxelsoup study: {several}. Mean Dice {scored.mean:.4f}, "
        "optimistic: models were chosen and scored on the same cases."
    )


def label_classes(description: Description, order: LabelOrder | None) -> str:
    """Label values of the label map, in words."""
    if order is None:
        return "one mask per region: " + ", ".join(description.regions)
    return "0 is background, " + ", ".join(f"{value} is {name}" for name, value in order.items())


def _tensors(study: Study, description: Description) -> dict[str, Any]:
    """What goes into the network and comes out: one window of the sliding-window inferer."""

    def tensor(names: Collection[str], **more: Any) -> dict[str, Any]:
        return {
            "type": "image",
            "spatial_shape": list(description.patch),
            "dtype": "float32",
            **more,
            "num_channels": len(names),
            "value_range": [],
            "is_patch_data": True,
            "channel_def": {str(number): name for number, name in enumerate(names)},
        }

    image = tensor(description.channels, format="magnitude", modality=study.bundle.modality)
    return {
        "inputs": {"image": image},
        "outputs": {"pred": tensor(description.regions, format="classes")},
    }
