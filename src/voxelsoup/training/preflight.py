"""What can be known to be wrong before the first job starts."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from voxelsoup.common.errors import InputError
from voxelsoup.common.plug_ins import is_plug_in
from voxelsoup.data.index.folder_hash import check_root
from voxelsoup.data.index.not_annotated import check_patterns
from voxelsoup.data.layouts import find_cases, reader_of
from voxelsoup.data.regions import check_label_order
from voxelsoup.models import weight_files
from voxelsoup.models.conversion import converted, read_converted, target_of
from voxelsoup.models.networks import check_outputs, outline
from voxelsoup.models.plug_ins import check_loss, check_network_name
from voxelsoup.study.plug_ins import losses_of
from voxelsoup.study.sections.training import Network
from voxelsoup.study.study import Study
from voxelsoup.training.data_parallel import check_network


def check_start(study: Study) -> None:
    """Make sure that a study can start: its files, its checkpoint, its network and its patch.

    Raises:
        InputError: with the first thing that is wrong.
    """
    check_root(study.dataset)
    reader_of(study.dataset.layout)
    _check_not_annotated(study)
    _check_named_files(study)
    _check_test_sets(study)
    if study.predict.label_order is not None:
        check_label_order(study.predict.label_order, study.regions, "predict.label_order")
    channels, regions = len(study.dataset.channels), len(study.regions)
    _check_deep_supervision(study.network)
    check_network_name(study.network.name)
    model = outline(study.network, channels, regions)
    check_network(model, study.resources.training.gpu)
    _check_weights(study, model)
    check_outputs(model, channels, regions, study.training.patch)
    some_unknown = study.dataset.ignore_label is not None or bool(study.dataset.not_annotated)
    for loss in losses_of(study):
        if is_plug_in("losses", loss):
            check_loss(loss, regions, some_unknown)


def _check_weights(study: Study, model: nn.Module) -> None:
    """Refuse weights from elsewhere that are not the network's, with what would make them so."""
    target = target_of(study)
    if study.stem.checkpoint is not None:
        path = Path(study.stem.checkpoint)
        if study.stem.is_converted:
            read_converted(path, study.stem.conversion, target)
        else:
            weights, _ = weight_files.load(path)
            if not _fit(model, weights):
                # Its message names what would help.
                converted(weights, study.stem.conversion, target, path)
            weight_files.check_fit(model, weights, path)
    for given in study.ingredients:
        read_converted(Path(given.file), given.conversion, target)


def _fit(model: nn.Module, weights: weight_files.Weights) -> bool:
    found = weight_files.shapes_of_weights(weights)
    return not weight_files.misfits(weight_files.shapes_of(model), found)


def _check_not_annotated(study: Study) -> None:
    # The phantom may not be generated yet; its index says the same.
    if study.dataset.not_annotated and study.dataset.layout != "phantom":
        cases = find_cases(study.dataset, Path(study.dataset.root or ""))
        names = [case.name for case in cases]
        test_sets = study.comparison.test_sets.values()
        check_patterns(study.dataset.not_annotated, names, test_sets)


def _check_test_sets(study: Study) -> None:
    for name, folder in study.comparison.test_sets.items():
        if not Path(folder).is_dir():
            raise InputError(
                f"comparison.test_sets.{name}",
                f"there is no folder {folder} (looked for at {Path(folder).absolute()})",
                "the folder of a labelled data set",
                "correct the path; relative paths count from the working directory",
            )


def _check_deep_supervision(network: Network) -> None:
    if network.deep_supervision and network.name != "MedNeXt":
        raise InputError(
            "network.deep_supervision",
            f"is on, and does nothing to {network.name}",
            "`network.name: MedNeXt` where it is on",
            "set `network.arguments: {deep_supervision: true, deep_supr_num: 2}` instead"
            if network.name == "DynUNet"
            else "set it to false",
        )


def _check_named_files(study: Study) -> None:
    """The files beside the scans that a study names, which Snakemake asks for when it plans."""
    named = {
        "dataset.file": study.dataset.file,
        "dataset.patients": study.dataset.patients,
        "folds.file": study.folds.file,
    }
    for key, file in named.items():
        if file is not None and not Path(file).is_file():
            raise InputError(
                key,
                f"there is no file {file} (looked for at {Path(file).absolute()})",
                "a file that is there; relative paths count from the working directory",
                f"correct `{key}` in the study, or leave it out",
            )
