"""Scores of a model that are known before its rule asks for them, case by case.

The job that trains a run has a device, torch and the preprocessed cases at hand when it ends: it
scores the run's models at once and leaves the scores here. The rule `evaluate` takes them from here
where they are what it would compute, and does not even import torch.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from voxelsoup.common.code_version import module_hashes
from voxelsoup.common.files import json_sha256, sha256, writable
from voxelsoup.common.plug_ins import code_of
from voxelsoup.evaluation.case_scores import COLUMNS
from voxelsoup.study.study import Study


class KeptScores:
    """The known scores of one model file, in a file of their own.

    A line of that is a case: what its scores depend on beside the model, and its rows.
    """

    def __init__(self, folder: Path, model: Path, identities: Mapping[str, str]) -> None:
        """Read what is known.

        Args:
            folder: of the fold; files in it are named by the hashes of models.
            model: the file with the weights.
            identities: case -> what its scores depend on (``identities_of``).
        """
        self.model, self.identities = model, identities
        self.path = folder / f"{sha256(model)[:16]}.jsonl"
        self._rows: dict[str, list[dict[str, Any]]] = {}
        cases = {identity: case for case, identity in identities.items()}
        for entry in _entries(self.path):
            if entry["identity"] in cases:
                self._rows[cases[entry["identity"]]] = entry["rows"]

    @property
    def missing(self) -> list[str]:
        """The cases without known scores, by name."""
        return sorted(self.identities.keys() - self._rows.keys())

    def keep(self, rows: pd.DataFrame) -> None:
        """Keep the rows of whole cases (``case_scores``).

        Raises:
            InputError: if they cannot be written.
        """
        with writable(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
        with writable(self.path), self.path.open("a", encoding="utf-8") as stream:
            for case, of_case in rows.groupby("case", sort=False):
                known = of_case.to_dict("records")
                self._rows[str(case)] = known
                entry = {"identity": self.identities[str(case)], "rows": known}
                stream.write(json.dumps(entry) + "\n")

    def rows(self, cases: Iterable[str], metrics: Iterable[str] = ()) -> pd.DataFrame:
        """The rows of cases by name: Dice, loss and these metrics.

        Raises:
            KeyError: if one is missing.
        """
        rows = [row for case in sorted(cases) for row in self._rows[case]]
        return pd.DataFrame(rows).reindex(columns=[*COLUMNS, *metrics])

    def forget(self) -> None:
        """Remove the file, once its rows are written where they belong."""
        self.path.unlink(missing_ok=True)


def kept_scores(
    models: Iterable[Path],
    folder: Path,
    study: Study,
    fold: Mapping[str, Sequence[str]],
    fingerprints: Mapping[str, str],
) -> list[KeptScores]:
    """What is known of models on the selection and test cases of a fold, one after the other.

    Files with the same weights, as the averaged and the raw ones of a scheduled optimizer, share
    their scores. The arguments are those of ``KeptScores`` and ``identities_of``.
    """
    cases = {*fold["selection"], *fold["test"]}
    identities = identities_of(study, cases, fold["test"], fingerprints)
    found: dict[Path, KeptScores] = {}
    kept = [KeptScores(folder, model, identities) for model in models]
    return [found.setdefault(one.path, one) for one in kept]


def _entries(path: Path) -> list[dict[str, Any]]:
    """The lines of a file; those that a crash cut off are passed over."""
    entries = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        try:
            entries.append(json.loads(line))
        except ValueError:
            continue
    return entries


def identities_of(
    study: Study, cases: Iterable[str], measured: Collection[str], fingerprints: Mapping[str, str]
) -> dict[str, str]:
    """Case -> a hash of all that its scores by a model depend on, beside the model.

    Args:
        study: with the constants of the fold (``study_of_fold``).
        measured: cases that are scored by all metrics of the study, not by Dice and loss alone.
        fingerprints: case -> hash of the preprocessed case.
    """
    content = study.model_dump(mode="json")
    shared = {
        "channels": content["dataset"]["channels"],
        "ignore_label": content["dataset"].get("ignore_label"),
        # A list, for their order is that of the network's outputs.
        "regions": list(content["regions"].items()),
        "network": content["network"],
        "evaluation": content["evaluation"],
        "intensities": content["preprocess"].get("intensities"),
        "patch": content["training"]["patch"],
        "precision": content["training"]["precision"],
        "code": module_hashes(["scores"])
        | code_of("networks", study.network.name)
        | code_of("losses", study.evaluation.loss),
    }
    of_metrics = code_of("metrics", *study.metrics.names)
    metrics = study.scored_metrics.model_dump(mode="json")
    return {
        case: json_sha256(
            {
                **shared,
                "case": fingerprints[case],
                "not_annotated": study.not_annotated_in(case),
                "metrics": metrics if case in measured else None,
                # Only where there are any: other identities stay what they were.
                **({"code of metrics": of_metrics} if of_metrics and case in measured else {}),
            }
        )
        for case in sorted(cases)
    }
