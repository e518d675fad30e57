"""What a study hands over, as it is read: the files of a bundle, and the list of all models."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from voxelsoup.common.errors import InputError
from voxelsoup.common.files import decoded, read_json, sha256
from voxelsoup.common.provenance import FORMER_NAME, NAME

# Below the bundle's folder.
METADATA = Path("configs", "metadata.json")
INFERENCE = Path("configs", "inference.json")
BUNDLED_POSTPROCESSING = Path("configs", "postprocessing.json")
CARD = Path("docs", "README.md")
WEIGHTS = Path("models")


def bundle_files(folds: Sequence[int]) -> list[str]:
    """Names of the files that every bundle of these folds has, its metadata first."""
    weights = weights_of(folds).values()
    torchscript = [torchscript_of(name) for name in weights]
    return [*map(str, (METADATA, INFERENCE, CARD)), *weights, *torchscript]


def weights_of(folds: Sequence[int]) -> dict[int, str]:
    """Fold -> name of its weights."""
    if len(folds) == 1:
        return {folds[0]: str(WEIGHTS / "model.safetensors")}
    return {fold: str(WEIGHTS / f"model_fold{fold}.safetensors") for fold in folds}


def torchscript_of(weights: str) -> str:
    """Name of the TorchScript archive of a file of weights."""
    return str(Path(weights).with_suffix(".ts"))


def bundle_hashes(folder: Path) -> dict[str, str]:
    """File name below a bundle -> SHA-256, as its metadata has them; raises InputError without."""
    metadata = folder / METADATA
    try:
        hashes = _own_part(metadata)["sha256"]
        return {str(name): str(digest) for name, digest in hashes.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            metadata,
            f"does not say what the bundle's files hash to ({error!r})",
            "`voxelsoup` -> `sha256`: file name -> hash, as voxelsoup writes it",
            "make the bundle with voxelsoup, or name its model file alone",
        ) from error


def bundle_label_order(folder: Path) -> dict[str, int] | None:
    """Region -> value written, in the order of writing, as ``configs/metadata.json`` has it.

    Raises InputError if it is not of this form.
    """
    metadata = folder / METADATA
    order = _own_part(metadata).get("label_order")
    if order is None:
        return None
    if not isinstance(order, dict) or not all(type(value) is int for value in order.values()):
        raise InputError(
            metadata,
            f"has the label order {order!r}",
            "`voxelsoup` -> `label_order`: region -> label value",
            "copy the bundle again from where it was made",
        )
    return order


def bundle_metrics(folder: Path) -> Any:
    """The settings of the study's metrics; None in a bundle that is older than this entry."""
    return _own_part(folder / METADATA).get("metrics")


def _own_part(metadata: Path) -> dict[str, Any]:
    """What the project has added to MONAI's metadata, under either of its names."""
    content = read_json(metadata)
    return content[NAME if NAME in content else FORMER_NAME]


def changed_files(folder: Path) -> dict[str, str]:
    """Files that are not as the bundle was written: name below it -> what is wrong.

    Raises InputError if the bundle does not say what its files hash to.
    """
    hashes = bundle_hashes(folder)
    wrong = {}
    for name, digest in hashes.items():
        if not (folder / name).is_file():
            wrong[name] = "missing"
        elif sha256(folder / name) != digest:
            wrong[name] = "changed"
    # In other folders of the bundle its user may keep label maps.
    parts = {Path(name).parts[0] for name in hashes}
    found = [p for part in parts for p in (folder / part).rglob("*") if p.is_file()]
    there = {p.relative_to(folder).as_posix() for p in found}
    return wrong | dict.fromkeys(sorted(there - {*hashes, METADATA.as_posix()}), "not listed")


def collected_models(manifest: Path) -> list[dict[str, str]]:
    """The rows of the manifest of collected models (``deploy.collection``): column -> cell."""
    # Cells are plain: quotation marks around JSON belong to it.
    rows = io.StringIO(decoded(manifest))
    return list(csv.DictReader(rows, delimiter="\t", quoting=csv.QUOTE_NONE))
