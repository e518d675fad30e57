"""The study's winner as a MONAI bundle: one folder to hand over.

It holds the winning kind of model of every fold (averaged in probability when it runs) as
safetensors and TorchScript, what MONAI needs to run it, and a model card.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from voxelsoup.common.errors import InputError
from voxelsoup.common.files import atomic_folder, read_json, sha256, write_json, write_text
from voxelsoup.comparison.score_summary import Means, means_of
from voxelsoup.data.case import IndexedCase
from voxelsoup.data.index.not_annotated import not_annotated_in_words
from voxelsoup.deploy.bundle import inference_config
from voxelsoup.deploy.bundle.metadata import BundleFacts, metadata
from voxelsoup.deploy.bundle.model_card import model_card
from voxelsoup.deploy.export import export
from voxelsoup.deploy.winner import Kind, kinds, winner
from voxelsoup.evaluation.case_scores import read_rows
from voxelsoup.prediction.bundle_files import (
    BUNDLED_POSTPROCESSING,
    CARD,
    INFERENCE,
    METADATA,
    collected_models,
    torchscript_of,
    weights_of,
)
from voxelsoup.prediction.model_files import MODEL, POSTPROCESSING, ModelFile, open_models
from voxelsoup.report.cases import accepted_in_words
from voxelsoup.soups.candidates import CANDIDATES, ranking, read_candidates
from voxelsoup.study.plug_ins import network_record
from voxelsoup.study.study import FINAL, Study, folder_of

log = logging.getLogger(__name__)

FINAL_MODEL = "Final Model"


def write_bundle(
    study: Study,
    results: Path,
    cases: Sequence[IndexedCase],
    methods: str,
    answer: str,
    folder: Path,
) -> Kind:
    """Write the bundle of a finished study, in place of an older one; returns what won.

    ``methods`` and ``answer``, what the primary comparison concludes, are words for the card.

    Raises InputError if a model is not the one that was scored, or cannot be exported.
    """
    folds = study.folds.numbers
    found = kinds(results, folds, [r for r in study.compared_recipes if r != "ensemble"])
    final = read_json(results / folder_of(FINAL) / "recipe.json") if study.final else None
    won = winner(found) if final is None else _kind_of_final(found, final)
    places = folds if final is None else [FINAL]
    of_place = won.folder if final is None else ""
    models = open_models([results / folder_of(place) / of_place / MODEL for place in places])
    if final is None:
        _check_scored(models, results, won, folds)
    else:
        _check_final(models[0], final)
    description = models[0].description
    weights = weights_of(places)
    constants = [m.description.preprocess.constants(description.channels) for m in models]
    files = inference_config.channel_files(cases)
    parts = inference_config.components(cases)
    order = inference_config.written_order(description.regions, study.predict.label_order)
    inference = inference_config.inference_config(
        description, study.evaluation, list(weights.values()), files, parts, order, constants
    )
    facts = BundleFacts(
        kind=won,
        kinds=found,
        results=_results(results, won, folds, {case.name: case.patient for case in cases}),
        cases=len(cases),
        patients=len({case.patient for case in cases}),
        order=order,
        ingredients={fold: _ingredients(results, won, fold) for fold in folds},
        final=final["statement"] if final else (),
        runs_with_monai_alone=not inference_config.needs_voxelsoup(inference),
        accepted=accepted_in_words(cases),
        not_annotated=not_annotated_in_words(cases, study.dataset.not_annotated, study.regions),
        answer=answer,
        network=network_record(study.network),
    )
    with atomic_folder(folder) as bundle:
        write_json(bundle / INFERENCE, inference)
        write_text(bundle / CARD, model_card(study, description, facts, weights, files, methods))
        for model, name in zip(models, weights.values(), strict=True):
            (bundle / name).parent.mkdir(exist_ok=True)
            shutil.copyfile(model.path, bundle / name)
            export(model, bundle / torchscript_of(name))
        if len(folds) == 1 and final is None:
            # Several folds have several, and none was chosen for the final model.
            shutil.copyfile(
                results / f"fold{folds[0]}" / POSTPROCESSING, bundle / BUNDLED_POSTPROCESSING
            )
        files_of_bundle = sorted(path for path in bundle.rglob("*") if path.is_file())
        hashes = {file.relative_to(bundle).as_posix(): sha256(file) for file in files_of_bundle}
        write_json(bundle / METADATA, metadata(study, description, facts, hashes))
    log.info("%s: %s, selection Dice %.4f", folder, won.title, won.score)
    return won


def _kind_of_final(found: Sequence[Kind], final: Mapping[str, Any]) -> Kind:
    """The final model, with the scores of the folds' models that were made in the same way."""
    alike = f"soups/{final['expected_by']}"
    (scores,) = (kind.scores for kind in found if kind.folder == alike)
    return Kind(alike, FINAL_MODEL, scores)


def _check_final(model: ModelFile, final: Mapping[str, Any]) -> None:
    if model.sha256 != final["sha256"]:
        raise InputError(
            model.path,
            f"was changed after it was made: its SHA-256 is {model.sha256}",
            f"{final['sha256']}, as recipe.json beside it says",
            "delete the file, so that the workflow makes it again",
        )


def _check_scored(
    models: Sequence[ModelFile], results: Path, won: Kind, folds: Sequence[int]
) -> None:
    """Make sure that the models are those that the study's manifest has the scores of."""
    manifest = results / "models" / "manifest.tsv"
    rows = collected_models(manifest)
    listed = {(int(row["fold"]), row["trial"]): row["sha256"] for row in rows}
    for model, fold in zip(models, folds, strict=True):
        trial = won.folder.removeprefix("soups/")
        if trial == won.folder:
            candidates = read_candidates(results / f"fold{fold}" / CANDIDATES)
            trial = ranking({c.model: c.selection_score for c in candidates})[0]
        if listed.get((fold, trial)) != model.sha256:
            raise InputError(
                model.path,
                f"was changed after it was scored: its SHA-256 is {model.sha256}",
                f"{listed.get((fold, trial))}, as {manifest} says",
                "delete the file, so that the workflow makes it and its scores again",
            )


def _ingredients(results: Path, won: Kind, fold: int) -> int:
    record = results / f"fold{fold}" / won.folder / "recipe.json"
    return len(read_json(record)["ingredients"]) if record.is_file() else 1


def _results(results: Path, won: Kind, folds: Sequence[int], patients: Mapping[str, str]) -> Means:
    """Means over the test cases of all folds, with intervals; ``patients``: case -> patient."""
    tests = [read_rows(results / f"fold{fold}" / won.folder / "test.csv") for fold in folds]
    return means_of(tests, patients)
