"""Score a fold's best model and its soups on its test cases, before and after post-processing."""

from pathlib import Path

import pandas as pd

from voxelsoup.common.files import read_json
from voxelsoup.common.logs import job_log
from voxelsoup.data.preprocessing.intensities import study_of_fold
from voxelsoup.evaluation.case_scores import write_rows
from voxelsoup.evaluation.postprocessing import Postprocessing, unchanged
from voxelsoup.soups.compared_scores import BothScores, compared_scores, known_scores


class TestCases:
    """Predicts and scores the test cases of the fold; a device is prepared once it is needed."""

    def _predicted_by(self, model: Path) -> tuple:
        # Where all is known, a job needs neither a device nor the seconds that torch takes.
        from voxelsoup.evaluation.score import load_model
        from voxelsoup.models import devices

        device = devices.prepare(study.training.device, snakemake.threads)
        return load_model(model, study, device), cases, folder, study, device

    def before(self, model: Path) -> pd.DataFrame:
        """Scores without post-processing."""
        from voxelsoup.evaluation.score import score_cases

        return score_cases(*self._predicted_by(model), measured=cases)

    def after(self, model: Path) -> pd.DataFrame:
        """Scores with post-processing."""
        from voxelsoup.evaluation.score import score_after

        return score_after(*self._predicted_by(model), postprocessing)

    def both(self, model: Path) -> BothScores:
        """Both, of the same predictions."""
        from voxelsoup.evaluation.score import score_before_and_after

        return BothScores(*score_before_and_after(*self._predicted_by(model), postprocessing))


with job_log(snakemake.log[0]):
    asked, given, made_of = snakemake.params, snakemake.input, snakemake.output
    folder, number = Path(asked.folder), snakemake.wildcards.fold
    study, fold = study_of_fold(snakemake.config, Path(given.folds), number, folder)
    cases = sorted(fold["test"])
    chosen = read_json(Path(given.postprocessing))["postprocessing"]
    postprocessing = Postprocessing.from_record(chosen)
    settings = {"evaluation": asked.evaluation, "metrics": asked.metrics}
    known = known_scores(Path(asked.candidates), study, cases, settings)
    changes = postprocessing != unchanged(list(study.regions))
    models = [Path(path) for path in given.models]
    scores = compared_scores(models, known, TestCases(), changes)
    for one, test, after in zip(scores, made_of.tests, made_of.postprocessed, strict=True):
        write_rows(Path(test), one.before)
        write_rows(Path(after), one.after)
