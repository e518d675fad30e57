"""Whether a study's network, its losses and its weights from elsewhere are what they have to be.

``main`` is the process of its own that ``preflight`` starts, which needs no torch.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from torch import nn

from voxelsoup.common.errors import InputError
from voxelsoup.common.plug_ins import is_plug_in
from voxelsoup.models import weight_files
from voxelsoup.models.conversion import converted, read_converted, target_of
from voxelsoup.models.networks import check_outputs, outline
from voxelsoup.models.plug_ins import check_loss, check_network_name
from voxelsoup.study.loading import load
from voxelsoup.study.plug_ins import losses_of
from voxelsoup.study.study import Study
from voxelsoup.training.data_parallel import check_network


def check_networks(study: Study) -> None:
    """Build the network without weights, and try it on the patch.

    Raises:
        InputError: with the first thing that is wrong.
    """
    channels, regions = len(study.dataset.channels), len(study.regions)
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


def main() -> None:
    """Say what is wrong with the study on standard input, as JSON; null: nothing."""
    try:
        check_networks(load(json.load(sys.stdin)))
        print("null")
    except InputError as error:
        print(json.dumps(error.as_record()))
