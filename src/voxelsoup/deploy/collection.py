"""Every model of a study in one folder, under a readable name, with a manifest."""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from voxelsoup.common.files import read_json, sha256, write_text
from voxelsoup.comparison.names import protocol_mark
from voxelsoup.evaluation.case_scores import mean_dice, read_rows, summary
from voxelsoup.study.trials import readable

log = logging.getLogger(__name__)

ENDING = ".safetensors"
# File systems end a name at 255 bytes; the manifest has what a long name loses here.
LONGEST_NAME = 200
UNFINISHED = ".collect."


@dataclass(frozen=True)
class CollectedModel:
    """One model of the collection.

    Attributes:
        trial: trial id, ``stem``, or the recipe of a soup.
        kind: ``stem``, ``trial`` or ``soup``.
        parameters: swept dotted key -> value; for a soup its ingredients.
        epochs: epochs trained; None for a soup.
        selection_score: mean Dice on the selection cases.
        test: its summary on the test cases.
    """

    fold: int
    trial: str
    kind: str
    parameters: dict[str, Any]
    epochs: int | None
    model: Path
    selection_score: float
    test: dict[str, float]

    @property
    def name(self) -> str:
        """The readable file name."""
        name = f"fold{self.fold}_{self.kind}"
        if self.kind == "soup":
            name += f"_{self.trial}"
        elif self.kind == "trial":
            name += f"_{self.trial}_{readable(self.parameters)}"
        return re.sub(r"[^A-Za-z0-9._=,+-]", "_", name)[:LONGEST_NAME] + ENDING


def run_entry(
    fold: int, run: str, model: Path, record: Path, selection: Path, test: Path
) -> CollectedModel:
    """The entry of a stem or trial of a fold; ``record`` is its run.json.

    ``run`` is ``stem``, ``trials/<id>``, or ``trials/<id>/<name>`` for other weights of a trial;
    ``selection`` and ``test`` are per-case scores.
    """
    content, kind = read_json(record), "trial" if "/" in run else "stem"
    settings, epochs = content["parameters"], content["epochs"]
    scores = mean_dice(read_rows(selection)), summary(read_rows(test))
    trial = run.removeprefix("trials/")
    return CollectedModel(fold, trial, kind, settings, epochs, model, *scores)


def soup_entry(
    fold: int, recipe: str, model: Path, record: Path, selection: Path, test: Path
) -> CollectedModel:
    """The entry of a soup; ``record`` is its recipe.json."""
    trials = [ingredient["trial"] for ingredient in read_json(record)["ingredients"]]
    scores = mean_dice(read_rows(selection)), summary(read_rows(test))
    return CollectedModel(fold, recipe, "soup", {"ingredients": trials}, None, model, *scores)


def collect(
    entries: Sequence[CollectedModel], folder: Path, manifest: Path, protocol: str
) -> pd.DataFrame:
    """Put every model into ``folder`` under its readable name, and write the manifest.

    Models are hard links where the file system allows them, so that they need no further space.
    ``folder`` belongs to the collection alone: files that are no longer listed are removed.
    ``published`` as the protocol is marked as optimistic.

    Returns:
        The manifest: ``fold``, ``trial``, ``kind``, ``parameters`` (JSON), ``epochs``,
        ``protocol``, ``selection_score``, ``test_avg``, ``test_<region>``..., ``test_loss``,
        ``sha256`` and ``path``, which is relative to the manifest's folder.
    """
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    kinds = ("stem", "trial", "soup")
    for entry in sorted(entries, key=lambda e: (e.fold, kinds.index(e.kind), e.trial)):
        target = folder / entry.name
        _link(entry.model, target)
        rows.append(
            {
                "fold": entry.fold,
                "trial": entry.trial,
                "kind": entry.kind,
                "parameters": json.dumps(entry.parameters, sort_keys=True),
                "epochs": entry.epochs,
                "protocol": protocol_mark(protocol),
                "selection_score": entry.selection_score,
                **entry.test,
                "sha256": sha256(target),
                "path": Path(os.path.relpath(target, manifest.parent)).as_posix(),
            }
        )
    table = pd.DataFrame(rows).astype({"epochs": "Int64"})
    _remove_others(folder, {entry.name for entry in entries} | {manifest.name})
    # Plain cells: quotation marks around JSON would be read as part of it by many tools.
    lines = [table.columns.tolist(), *table.astype(object).itertuples(index=False)]
    write_text(manifest, "".join("\t".join(_cell(c) for c in line) + "\n" for line in lines))
    return table


def _cell(value: Any) -> str:
    if value is pd.NA or value is None:
        return ""
    return repr(value) if isinstance(value, float) else str(value)


def _link(source: Path, target: Path) -> None:
    """Make ``target`` the same file as ``source``, or a complete copy of it."""
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=UNFINISHED) as temporary:
        fresh = Path(temporary, target.name)
        try:
            fresh.hardlink_to(source.resolve())
        except OSError as error:
            log.info("%s: copied, since it cannot be linked (%s)", target.name, error)
            shutil.copyfile(source, fresh)
        fresh.replace(target)


def _remove_others(folder: Path, keep: set[str]) -> None:
    for path in folder.iterdir():
        if path.name not in keep and (path.is_symlink() or path.is_file()):
            log.info("%s: removed, no longer part of the study", path)
            path.unlink()
        elif path.name.startswith(UNFINISHED):
            shutil.rmtree(path)
