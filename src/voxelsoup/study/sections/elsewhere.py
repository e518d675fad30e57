"""Weights that the project did not train: where they lie, and how they become the network's."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    GetJsonSchemaHandler,
    WithJsonSchema,
    model_validator,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from voxelsoup.study.sections.base import NAME_PATTERN, PathText, Section, only_if_not


def _merged(value: Any) -> Any:
    """One mapping of a list of mappings, in their order; anything else as it is."""
    if isinstance(value, list) and all(isinstance(rule, dict) for rule in value):
        patterns = [pattern for rule in value for pattern in rule]
        if len(set(patterns)) < len(patterns):
            raise ValueError("names a pattern twice")
        return {pattern: new for rule in value for pattern, new in rule.items()}
    return value


def _are_expressions(value: dict[str, str]) -> dict[str, str]:
    for pattern, replacement in value.items():
        try:
            # Groups that a replacement names have to be there, whatever it is applied to.
            re.compile(f"(?:{pattern})|").sub(replacement, "")
        except (re.error, IndexError) as error:
            raise ValueError(f"`{pattern}: {replacement}` is no renaming rule: {error}") from error
    return value


_RULES = {"type": "object", "additionalProperties": {"type": "string"}}
Rename = Annotated[
    dict[str, str],
    BeforeValidator(_merged),
    AfterValidator(_are_expressions),
    # Editors must not mark a list as a mistake.
    WithJsonSchema({"anyOf": [_RULES, {"type": "array", "items": _RULES}]}),
]
# Files of this ending are used as they are, where nothing is stated about their tensors.
SAFE_ENDING = ".safetensors"
FirstConvolution = Literal["averaged", "repeated"]

RENAME = (
    "Rules that turn the names of a file's tensors into the network's: regular expression -> "
    "replacement (`\\1` is its first group), as a mapping or a list of mappings. Each is applied "
    "to what the one before gave; a tensor whose name becomes empty is left out. `check` proposes "
    "rules for a file that does not fit."
)
FIRST_CONVOLUTION = (
    "For a file with another number of input channels: every channel takes the mean of the file's "
    "channels (`averaged`), or the file's channels in turn (`repeated`), scaled so that a scan "
    "whose channels are all alike gives the response that it gave. Without it such a file is "
    "refused."
)
UPKERN = (
    "Grow a MedNeXt's smaller kernels to `network.kernel_size` by trilinear interpolation (UpKern, "
    "Roy et al. 2023). Without it such a file is refused."
)


class Conversion(Section):
    """What is done to a file's tensors before they are the network's."""

    # What a text in the place of a section that inherits these settings is.
    short_form: ClassVar[str] = ""

    rename: Rename = Field({}, exclude_if=only_if_not({}), description=RENAME)
    first_convolution: FirstConvolution | None = Field(
        None, exclude_if=only_if_not(None), description=FIRST_CONVOLUTION
    )
    upkern: bool = Field(False, exclude_if=only_if_not(False), description=UPKERN)

    @classmethod
    def __get_pydantic_json_schema__(
        cls, core: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        """The section, or its short form: editors must not mark it as a mistake."""
        section = handler.resolve_ref_schema(handler(core))
        text = {"type": "string", "description": cls.short_form}
        return {"title": cls.__name__, "anyOf": [section, text]}

    @property
    def conversion(self) -> Conversion:
        """These settings alone."""
        return Conversion(
            rename=self.rename, first_convolution=self.first_convolution, upkern=self.upkern
        )

    @property
    def changes_something(self) -> bool:
        """Whether any of them is set."""
        return self.conversion != Conversion()


class GivenModel(Conversion):
    """A model that the project did not train, and that is an ingredient of soups."""

    short_form: ClassVar[str] = "the path of a file of weights"

    file: PathText = Field(
        ..., min_length=1, description="Its weights: .safetensors, .pt, .pth, .ckpt or .model."
    )
    name: str = Field(
        "",
        pattern=rf"{NAME_PATTERN}|^$",
        description="What it is called in files and tables; by default as its file.",
    )
    seen: Literal["unknown", "none"] = Field(
        "unknown",
        description="Whether it was trained on cases of this study: `none` states that it was not. "
        "`unknown`: its scores, and those of soups with it, may be too high, which `check`, the "
        "report, the methods and the model card say.",
    )

    @model_validator(mode="before")
    @classmethod
    def _accept_a_path(cls, value: Any) -> Any:
        return {"file": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _has_a_name(self) -> GivenModel:
        if not self.name:
            name = re.sub(r"[^A-Za-z0-9]+", "_", Path(self.file).stem).strip("_")
            # A model that was checked stays as it is: this is the last of its checks.
            object.__setattr__(self, "name", name or "model")
        return self
