"""Files of models that no study here has trained, as the ingredients of a soup."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from voxelsoup.common.errors import InputError
from voxelsoup.common.files import json_sha256, sha256
from voxelsoup.models import weight_files
from voxelsoup.models.conversion import target_of, write_converted
from voxelsoup.study.sections.elsewhere import SAFE_ENDING, Conversion
from voxelsoup.study.study import Study

# What of a model file's description has to be that of the study.
DESCRIBED = ("network", "channels", "regions", "preprocess", "patch")


@dataclass(frozen=True)
class ModelToAverage:
    """A model file of a network that is known.

    Attributes:
        name: what the user calls it.
        source: the file that was given, and the hash of its content.
        path: the safetensors file to average, and its hash; the same file where nothing had to be
            converted.
    """

    name: str
    source: Path
    source_sha256: str
    path: Path
    sha256: str
    conversion: Conversion

    def record(self) -> dict[str, Any]:
        """What a recipe says of where it comes from."""
        return {
            "trial": self.name,
            "file": str(self.source),
            "file_sha256": self.source_sha256,
            **self.conversion.model_dump(),
        }


def model_to_average(
    source: Path, ways: Sequence[Conversion], study: Study, folder: Path
) -> ModelToAverage:
    """A file as a model of a study, converted if it has to be: once, by its content.

    Args:
        source: what the user named, a file or the folder of a run or soup.
        ways: conversions that are stated; the first that makes the file fit is taken.
        folder: where converted files go.

    Raises:
        InputError: if it holds no weights of the study's network, or was made for other channels,
            regions or preprocessing.
    """
    file = source / "model.safetensors" if source.is_dir() else source
    if not file.is_file():
        raise InputError(
            file, "no such file", "a file of weights, or the folder of a run", "check the path"
        )
    digest = sha256(file)
    if file.suffix == SAFE_ENDING:
        shapes, stated = weight_files.shapes(file)
        fits = {n: shape for n, (shape, _) in shapes.items()} == target_of(study).shapes()
        if stated:
            _check_described(file, stated, study, any(way.changes_something for way in ways))
        if stated and fits:
            return ModelToAverage(str(source), file, digest, file, digest, Conversion())
    for way in ways:
        try:
            path = folder / f"{file.stem}-{_key(digest, way, study)}{SAFE_ENDING}"
            own = sha256(path) if path.is_file() else write_converted(file, way, study, path)
        except InputError:
            if way is ways[-1]:
                raise
        else:
            return ModelToAverage(str(source), file, digest, path, own, way)
    raise ValueError("no conversion to try")


def _key(digest: str, conversion: Conversion, study: Study) -> str:
    """By what a converted file is known: the content of its source, and what is made of it."""
    asked = [digest, conversion.model_dump(), weight_files.describe(study)]
    return json_sha256({"asked": asked})[:16]


def _check_described(file: Path, stated: dict[str, Any], study: Study, is_converted: bool) -> None:
    """Refuse a model file that says itself that it is of another kind than the study's."""
    own = weight_files.describe(study)
    # A conversion that is stated changes these two.
    changed = ("network", "channels") if is_converted else ()
    for key in DESCRIBED:
        one, other = stated.get(key), own[key]
        if isinstance(one, dict) and isinstance(other, dict) and key == "regions":
            one, other = list(one.items()), list(other.items())
        if key not in changed and one != other:
            raise InputError(
                file,
                f"is a model with another `{key}`: {one} instead of {other}",
                "models of one network, one set of regions and one preprocessing",
                "leave it out, or name the study that made it",
            )


def check_all_differ(models: Sequence[ModelToAverage]) -> None:
    """Refuse the same weights twice, which would count twice in every average."""
    first: dict[str, ModelToAverage] = {}
    for model in models:
        same = first.setdefault(model.sha256, model)
        if same is not model:
            raise InputError(
                model.name,
                f"holds the same weights as {same.name}",
                "every model once",
                "take one of them out",
            )
