"""The study that made a model, as found in its results folder or its bundle."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import ValidationError

from voxelsoup.prediction.bundle_files import METADATA, bundle_metrics
from voxelsoup.runs.invocation import recorded_studies
from voxelsoup.study.loading import read_of_results, wrong_settings
from voxelsoup.study.sections.evaluation import Metrics
from voxelsoup.study.study import Study

# Written by the workflow: the study with all defaults.
COMPLETE_STUDY = Path("report", "study.yaml")


@dataclass(frozen=True)
class StudyOfModel:
    """What is known of the study that made a model.

    Attributes:
        metrics: what it scores by.
        not_annotated: name or pattern of a case -> regions that are not annotated in it; nothing of
            a bundle, which names no cases.
        source: the file that says so.
        missing_channels: what a case without one of its channels is read as, if that is accepted;
            not known of a bundle.
    """

    metrics: Metrics
    not_annotated: Mapping[str, Sequence[str]]
    source: Path
    missing_channels: Literal["zeros"] | None = None


def study_of(model: Path) -> StudyOfModel | None:
    """The study of a model; None for a model on its own.

    Raises:
        InputError: if a bundle names metrics that cannot be.
    """
    for folder in model.absolute().parents:
        if (folder / METADATA).is_file():
            found = bundle_metrics(folder)
            if found is not None:
                try:
                    return StudyOfModel(Metrics.model_validate(found), {}, folder / METADATA)
                except ValidationError as error:
                    raise wrong_settings(error, str(folder / METADATA), "metrics") from error
        if (folder / COMPLETE_STUDY).is_file():
            return _known(read_of_results(folder / COMPLETE_STUDY), folder / COMPLETE_STUDY)
        for files in reversed(recorded_studies(folder)):
            if all(file.is_file() for file in files):
                return _known(read_of_results(*files), files[-1])
    return None


def _known(study: Study, source: Path) -> StudyOfModel:
    dataset = study.dataset
    accepted = dataset.accept.missing_channels
    return StudyOfModel(study.scored_metrics, dataset.not_annotated, source, accepted)
