"""What can be known to be wrong before the first job starts."""

from __future__ import annotations

from pathlib import Path

from voxelsoup.data.index.folder_hash import check_root
from voxelsoup.data.regions import check_label_order
from voxelsoup.models import weight_files
from voxelsoup.models.networks import check_outputs, outline
from voxelsoup.study.study import Study
from voxelsoup.training.data_parallel import check_network


def check_start(study: Study) -> None:
    """Make sure that a study can start: its folder, its checkpoint, its network and its patch.

    Raises:
        InputError: with the first thing that is wrong.
    """
    check_root(study.dataset)
    if study.predict.label_order is not None:
        check_label_order(study.predict.label_order, study.regions, "predict.label_order")
    channels, regions = len(study.dataset.channels), len(study.regions)
    model = outline(study.network, channels, regions)
    check_network(model, study.resources.training.gpu)
    if study.stem.checkpoint is not None:
        path = Path(study.stem.checkpoint)
        weights, _ = weight_files.load(path)
        weight_files.check_fit(model, weights, path)
    check_outputs(model, channels, regions, study.training.patch)
