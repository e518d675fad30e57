"""Where a study's numbers come from: versions, commit, machines and hashes in one table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pandas as pd

from voxelsoup.common.plug_ins import ONE, RECORDED, in_words

COLUMNS = ["part", "name", "value"]
CAPTION = (
    "What the study was made with and from. Versions, commits and machines are those that the "
    "trainings recorded; hashes are SHA-256. A data fingerprint is one hash over the preprocessed "
    "training cases of a fold."
)


def provenance_table(
    runs: Sequence[Mapping[str, Any]],
    models: pd.DataFrame,
    files: Mapping[str, str],
    report: Mapping[str, str],
    plug_ins: Sequence[Mapping[str, Any]] = (),
) -> pd.DataFrame:
    """Everything that identifies a study.

    Args:
        runs: records of the trainings (run.json).
        models: manifest of the models, with ``fold``, ``trial``, ``kind`` and ``sha256``.
        files: name of a file -> its SHA-256.
        report: name -> version of what the comparison was made with.
        plug_ins: records of what the study uses of other packages, as they are now; of networks and
            losses those count that the trainings recorded.

    Returns:
        Index ``part`` and ``name``; column ``value``.
    """
    packages = list(dict.fromkeys(name for run in runs for name in run["versions"]))
    rows = [
        ("software", name, _all(run["versions"].get(name) for run in runs)) for name in packages
    ]
    rows.append(("software", "commit", _all(run["commit"] for run in runs)))
    rows += _plug_ins(runs, plug_ins)
    rows += [("report", name, version) for name, version in report.items()]
    rows += [("file", name, digest) for name, digest in files.items()]
    rows += _fingerprints(runs)
    rows += _machines(runs)
    rows += [
        ("model", f"fold {model.fold}, {_name(model.kind, model.trial)}", model.sha256)
        for model in models.itertuples()
    ]
    return pd.DataFrame(rows, columns=COLUMNS).set_index(COLUMNS[:2])


def _plug_ins(
    runs: Sequence[Mapping[str, Any]], plug_ins: Sequence[Mapping[str, Any]]
) -> list[tuple[str, str, str]]:
    found: dict[str, list[str]] = {}
    trained = [one for run in runs for one in run.get(RECORDED, ())]
    recorded = {(one["kind"], one["name"]) for one in trained}
    others = [one for one in plug_ins if (one["kind"], one["name"]) not in recorded]
    for one in [*trained, *others]:
        found.setdefault(f"{ONE[one['kind']]} {one['name']}", []).append(in_words(one))
    return [("plug-in", name, _all(values)) for name, values in found.items()]


def _all(values: Iterable[str | None]) -> str:
    """What the runs record, each value once: they may be months apart."""
    return "; ".join(dict.fromkeys(value for value in values if value is not None))


def _fingerprints(runs: Sequence[Mapping[str, Any]]) -> list[tuple[str, str, str]]:
    folds = sorted({run["fold"] for run in runs})
    return [
        (
            "data",
            f"fold {fold}, fingerprint",
            _all(run["data_fingerprint"] for run in runs if run["fold"] == fold),
        )
        for fold in folds
    ]


def _machines(runs: Sequence[Mapping[str, Any]]) -> list[tuple[str, str, str]]:
    used = Counter(
        (run["machine"]["host"], f"{run['device']}, {run['machine']['processor']}") for run in runs
    )
    return [
        ("machine", host, f"{device}: {count} training{'s' if count > 1 else ''}")
        for (host, device), count in sorted(used.items())
    ]


def _name(kind: str, trial: str) -> str:
    return kind if kind == trial else f"{kind} {trial}"
