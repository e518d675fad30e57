"""The metrics of the study that made a model, as found in its results folder or its bundle."""

from __future__ import annotations

from pathlib import Path

from pydantic import ValidationError

from voxelsoup.prediction.bundle_files import METADATA, bundle_metrics
from voxelsoup.runs.invocation import recorded_studies
from voxelsoup.study.loading import read, wrong_settings
from voxelsoup.study.sections.evaluation import Metrics

# Written by the workflow: the study with all defaults.
COMPLETE_STUDY = Path("report", "study.yaml")


def metrics_of(model: Path) -> tuple[Metrics, Path] | None:
    """The metrics of a model's study, and the file that says so; None for a model on its own.

    Raises:
        InputError: if a bundle names metrics that cannot be.
    """
    for folder in model.absolute().parents:
        if (folder / METADATA).is_file():
            found = bundle_metrics(folder)
            if found is not None:
                try:
                    return Metrics.model_validate(found), folder / METADATA
                except ValidationError as error:
                    raise wrong_settings(error, str(folder / METADATA), "metrics") from error
        if (folder / COMPLETE_STUDY).is_file():
            return read(folder / COMPLETE_STUDY).scored_metrics, folder / COMPLETE_STUDY
        for files in reversed(recorded_studies(folder)):
            if all(file.is_file() for file in files):
                return read(*files).scored_metrics, files[-1]
    return None
