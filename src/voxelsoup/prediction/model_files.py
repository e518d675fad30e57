"""Models as users name them: files, folders of soups and bundles, checked before they are used."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ValidationError
from torch import nn

from voxelsoup.common import plug_ins
from voxelsoup.common.errors import InputError
from voxelsoup.common.files import read_json, sha256
from voxelsoup.data.regions import LabelOrder, check_label_order
from voxelsoup.evaluation.postprocessing import Postprocessing
from voxelsoup.models import networks, weight_files
from voxelsoup.prediction.bundle_files import (
    BUNDLED_POSTPROCESSING,
    METADATA,
    WEIGHTS,
    bundle_hashes,
    bundle_label_order,
    collected_models,
)
from voxelsoup.study.loading import wrong_settings
from voxelsoup.study.sections.base import Name, Triple
from voxelsoup.study.sections.data import Preprocess
from voxelsoup.study.sections.training import ALL_AXES, Axis, Network

MODEL = "model.safetensors"
ENDING = ".safetensors"
POSTPROCESSING = "postprocessing.json"
FOLD = re.compile(r"fold\d+")


class Description(BaseModel):
    """What a model file says of itself (``weight_files.describe``), typed.

    ``channels`` are its input volumes and ``regions`` (-> label values) its outputs, in their
    order; ``patch`` is the window's size in voxels (x, y, z); ``mirror_axes`` are those along
    which it was trained on mirror images.
    """

    network: Network
    channels: list[Name]
    regions: dict[Name, list[int]]
    preprocess: Preprocess
    patch: Triple
    mirror_axes: list[Axis] = list(ALL_AXES)


@dataclass(frozen=True)
class ModelFile:
    """One set of weights (safetensors), its header read and its hash taken.

    ``postprocessing`` is the file of the one that was chosen for it, if there is one;
    ``label_order`` is region -> value written, if its bundle states it.
    """

    path: Path
    sha256: str
    description: Description
    postprocessing: Path | None = None
    label_order: LabelOrder | None = None

    def build(self, device: torch.device) -> nn.Module:
        """The network in evaluation mode; raises InputError if these weights do not fit it."""
        own = self.description
        model = networks.build(own.network, len(own.channels), len(own.regions))
        weight_files.fit(model, weight_files.load(self.path)[0], self.path)
        return model.to(device).eval()

    def read_postprocessing(self) -> Postprocessing:
        """What was chosen for it; raises InputError if nothing was, or for other regions."""
        if self.postprocessing is None:
            raise InputError(
                self.path,
                "has no post-processing beside it",
                f"{POSTPROCESSING} in the folder of its fold, or {BUNDLED_POSTPROCESSING} in its "
                "bundle",
                "leave --postprocess out, or name the model within its results folder",
            )
        try:
            record = read_json(self.postprocessing)
            chosen = Postprocessing.from_record(record.get("postprocessing", record))
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            found = f"cannot be read: {error!r}"
            raise InputError(
                self.postprocessing, found, "a fold's post-processing", "copy it again"
            ) from error
        if list(chosen.regions) != list(self.description.regions):
            raise InputError(
                self.postprocessing,
                f"is of the regions {', '.join(chosen.regions)}",
                f"the model's: {', '.join(self.description.regions)}",
                "leave --postprocess out, or put the right file there",
            )
        return chosen


def open_models(paths: Sequence[Path]) -> list[ModelFile]:
    """Find the files that paths mean, and make sure that they can be averaged.

    Args:
        paths: each a model file, the folder of a run, soup or ensemble, or a bundle.

    Returns:
        The files, in the order of the paths; weights themselves are not read yet. Their networks
        may differ; channels, regions, preprocessing and patch do not.

    Raises:
        InputError: if a path leads to no model, a file is damaged, has another hash than recorded,
            does not fit its network, or differs from the first one.
    """
    found = [file for path in paths for file in _opened(Path(path))]
    seen: dict[str, Path] = {}
    for file in found:
        first = seen.setdefault(file.sha256, file.path)
        if first is not file.path:
            raise InputError(
                file.path,
                f"holds the same weights as {first}",
                "every model once",
                "take one of them out",
            )
        _check_alike(file, found[0])
    return found


def _opened(path: Path) -> list[ModelFile]:
    if (path / METADATA).is_file():
        return _of_bundle(path)
    if (path / MODEL).is_file():
        return [_of_file(path / MODEL)]
    if (path / "recipe.json").is_file():
        return _of_ensemble(path / "recipe.json")
    if path.is_dir():
        raise InputError(
            path,
            "holds no model",
            f"a folder with {MODEL}, or a bundle with {METADATA}",
            "name the model's own folder, such as results/fold0/soups/greedy",
        )
    return [_of_file(path)]


def _of_file(path: Path) -> ModelFile:
    """A model file of a study; its hash is compared where a manifest beside it names it."""
    digest = _hash(path)
    manifest = path.with_name("manifest.tsv")
    for row in collected_models(manifest) if manifest.is_file() else []:
        if Path(row.get("path", "")).name == path.name:
            _check_hash(path, digest, row["sha256"], manifest)
    folds = [parent for parent in path.absolute().parents if FOLD.fullmatch(parent.name)]
    beside = [folder / POSTPROCESSING for folder in (path.absolute().parent, *folds[:1])]
    return _described(path, digest, next((file for file in beside if file.is_file()), None))


def _of_ensemble(recipe: Path) -> list[ModelFile]:
    """The ingredients of an ensemble, which has no weights of its own."""
    files = []
    for path, digest in _ingredients(recipe):
        if not path.is_file():
            raise InputError(
                recipe,
                f"names {path}, which is not there",
                "the models that the ensemble was made of, as seen from the working directory",
                "start the command where the study was run",
            )
        file = _of_file(path)
        _check_hash(path, file.sha256, digest, recipe)
        files.append(file)
    return files


def _ingredients(recipe: Path) -> list[tuple[Path, str]]:
    """The files that an ensemble is made of, and their hashes."""
    try:
        listed = read_json(recipe)["ingredients"]
        found = [(Path(one["path"]), str(one["sha256"])) for one in listed]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            recipe,
            f"does not say what the ensemble was made of ({error!r})",
            "`ingredients`: a list of models, each with `path` and `sha256`",
            "copy the ensemble's folder again, or name its models one by one",
        ) from error
    if not found:
        raise InputError(
            recipe, "names no ingredient", "at least one model", "copy the ensemble's folder again"
        )
    return found


def _of_bundle(folder: Path) -> list[ModelFile]:
    metadata = folder / METADATA
    hashes = bundle_hashes(folder)
    paths = sorted((folder / WEIGHTS).glob(f"*{ENDING}"))
    if not paths:
        raise InputError(
            folder, f"holds no {WEIGHTS}/*{ENDING}", "a complete bundle", "copy or unpack it again"
        )
    _check_complete(folder, hashes)
    order = bundle_label_order(folder)
    chosen = folder / BUNDLED_POSTPROCESSING
    postprocessing = chosen if chosen.is_file() else None
    files = []
    for path in paths:
        named = path.relative_to(folder).as_posix()
        if named not in hashes:
            raise InputError(
                path,
                f"is not among the files that {metadata} names",
                "the bundle's own files alone",
                "take the file away, or copy the bundle again",
            )
        digest = _hash(path)
        _check_hash(path, digest, hashes[named], metadata)
        file = _described(path, digest, postprocessing)
        if order is not None:
            order = check_label_order(order, file.description.regions, str(metadata))
        files.append(replace(file, label_order=order))
    if postprocessing is not None:
        named = BUNDLED_POSTPROCESSING.as_posix()
        _check_hash(chosen, _hash(chosen), hashes.get(named, "no hash"), metadata)
    return files


def _check_complete(folder: Path, hashes: Mapping[str, str]) -> None:
    """Refuse a bundle that lacks what predictions depend on: they would come out differently."""
    needed = [n for n in hashes if n.endswith(ENDING) or n == BUNDLED_POSTPROCESSING.as_posix()]
    missing = next((name for name in needed if not (folder / name).is_file()), None)
    if missing is not None:
        raise InputError(
            folder / missing,
            "is missing",
            f"all of the bundle's files, as {folder / METADATA} names them",
            "copy or unpack the bundle again",
        )


def _check_hash(path: Path, found: str, expected: str, where: Path) -> None:
    if found != expected:
        raise InputError(
            path,
            f"was changed or cut off: its SHA-256 is {found}",
            f"{expected}, as {where} says",
            "copy the model again from where it was made",
        )


def _hash(path: Path) -> str:
    try:
        return sha256(path)
    except OSError as error:
        raise InputError(
            path,
            f"cannot be read: {error.strerror or error}",
            f"a model file ({ENDING}), or the folder of a soup or bundle",
            "check the path",
        ) from error


def _described(path: Path, digest: str, postprocessing: Path | None) -> ModelFile:
    """A file with its description; weights that do not fit the network are refused here."""
    shapes, stated = weight_files.shapes(path)
    if not stated:
        raise InputError(
            path,
            "does not say what it is: it was not written by voxelsoup",
            "a model file of a voxelsoup study",
            "name a model of the study's results, or a bundle",
        )
    _check_network_is_here(path, stated)
    try:
        description = Description.model_validate(stated)
    except ValidationError as error:
        raise wrong_settings(error, f"{path} (its header)") from error
    _check_constants(description, path)
    network = networks.outline(
        description.network, len(description.channels), len(description.regions)
    )
    empty = {n: torch.empty(shape, device="meta") for n, (shape, _) in shapes.items()}
    weight_files.check_fit(network, empty, path)
    return ModelFile(path, digest, description, postprocessing)


def _check_network_is_here(path: Path, stated: Mapping[str, Any]) -> None:
    """Refuse a model whose network is of a package that is not installed here."""
    origin = stated.get(weight_files.NETWORK_FROM)
    if origin is None:
        return
    name, package = stated["network"]["name"], origin["package"]
    needed = f"{package or 'the package of ' + origin['object']}, which has {origin['object']}"
    try:
        found = plug_ins.find("networks", name)
    except plug_ins.UnknownPlugIn as error:
        raise InputError(
            path,
            f"its network `{name}` is of another package, which is not installed here",
            needed,
            (f"pip install {package}" if package else "put its folder on PYTHONPATH")
            + " (metadata.json of its bundle, or provenance.csv of its study, has the version)",
        ) from error
    if found.path != origin["object"]:
        raise InputError(
            path,
            f"its network `{name}` is another one here: {found.of_package}",
            needed,
            "predict in an environment with that package and without the other one",
        )


def _check_constants(description: Description, path: Path) -> None:
    """Refuse a model that does not say by what its channels were normalised."""
    preprocess, channels = description.preprocess, description.channels
    schemes = preprocess.normalisation
    named = channels if isinstance(schemes, str) else [n for n in channels if n in schemes]
    known = preprocess.intensities or {}
    missing = [name for name in preprocess.by_fold(named) if name not in known]
    if missing or len(named) < len(channels):
        raise InputError(
            path,
            f"does not say how channel {(missing or channels)[0]} was normalised",
            "the scheme of every channel, and of `ct` its constants (`preprocess.intensities`)",
            "take the model file that the study wrote",
        )


def _check_alike(file: ModelFile, first: ModelFile) -> None:
    for key in ("channels", "regions", "preprocess", "patch"):
        one, other = (_ordered(getattr(model.description, key)) for model in (first, file))
        if one != other:
            raise InputError(
                file.path,
                f"cannot be averaged with {first.path}: its `{key}` is {other} instead of {one}",
                "models with the same channels, regions, preprocessing and patch",
                "predict with each of them alone",
            )


def _ordered(value: Any) -> Any:
    """A value to compare; a mapping with its order, since regions of another order do not fit."""
    if isinstance(value, dict):
        return list(value.items())
    # Constants of a fold are applied to each model by itself.
    return value.model_dump(exclude={"intensities"}) if isinstance(value, BaseModel) else value
