"""Sections about scores: windows, metrics, and the post-processing that is searched for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from voxelsoup.common.text import did_you_mean
from voxelsoup.study.sections.base import Name, PathText, Section, only_if_not
from voxelsoup.study.sections.data import LayoutOfOthers
from voxelsoup.study.sections.plug_in_name import NameOf
from voxelsoup.study.sections.soup import FINISHED
from voxelsoup.study.sections.training import LossName

Protocol = Literal["held-out", "published"]
MetricName = Annotated[str, NameOf("metrics")]
Probability = Annotated[float, Field(gt=0, lt=1)]
CubicMillimetres = Annotated[float, Field(ge=0, allow_inf_nan=False)]
# As files and columns are called after it: `nnU-Net`.
ToolName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$")]
SomeCubicMillimetres = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class Evaluation(Section):
    """How models are scored."""

    protocol: Protocol = Field(
        "held-out",
        description="`held-out`: models and soups are chosen on the selection cases and scored "
        "once on the fold's test cases. `published`: they are chosen and scored on "
        "the same held-out cases, as in the published study; this is optimistic, and "
        "every number is marked so.",
    )
    overlap: float = Field(
        0.5, ge=0, lt=1, description="Overlap of neighbouring windows, as a share of the patch."
    )
    window_batch: int = Field(
        4,
        ge=1,
        description="Windows that go through the network at once; on a CPU at most as many as "
        "have 64 x 64 x 64 voxels together, or one.",
    )
    loss: LossName = Field(
        "dice",
        description="Loss reported beside the scores; the same for all trials, whatever they were "
        "trained with, so that it can be compared.",
    )


class Primary(Section):
    """The one question of a study, which is tested by itself at 5 %."""

    model: str | None = Field(
        None,
        description="The model that the study is about, by its recipe. By default the finished "
        "soup if the study finishes one, else `greedy`, else the first of `soup.recipes`.",
    )
    against: str = Field(
        "best",
        description="The model that it is compared with, by the mean Dice over all regions and "
        "folds: `best`, the best single model of each fold, or another recipe.",
    )


def primary_model(recipes: Sequence[str]) -> str:
    """The model that a study is about by default, of those that it compares."""
    asked = [recipe for recipe in (FINISHED, "greedy") if recipe in recipes]
    return [*asked, *(recipe for recipe in recipes if recipe != "best"), *recipes][0]


class Comparison(Section):
    """What is asked about the models, and what they are compared on beside their test cases."""

    primary: Primary | None = Field(
        None,
        exclude_if=lambda primary: primary is None,
        description="The question that the study asks: fix it before you look at results. It is "
        "tested by itself at 5 %; all other comparisons are secondary and corrected for their "
        "number. By default the soup against the best single model.",
    )
    test_sets: dict[Name, PathText] = Field(
        {},
        description="Further labelled data sets, in any layout: name -> folder. The best single "
        "model and every recipe of every fold predict all of their cases, which no fold may have; "
        "the report has a section with all metrics, and differences paired over the cases.",
    )
    test_set_layouts: dict[Name, LayoutOfOthers] = Field(
        {},
        exclude_if=only_if_not({}),
        description="Layouts of test sets, as in `dataset.layout`: name of the test set -> layout. "
        "Of those that are not named here it is found out, among those of docs/data.md; one of "
        "another package has to be named.",
    )
    other_tools: dict[ToolName, PathText] = Field(
        {},
        exclude_if=only_if_not({}),
        description="Label maps of other tools for all test cases: name -> folder, which holds "
        "CASE.nii.gz (or another format), CASE_0000, CASE-seg, MONAI's CASE_trans, or a folder "
        "CASE with one of them. Their values are those of the data set's own label maps, as "
        "`regions` has them. They are scored by the code that scores the study's models, and stand "
        "in its tables as what they are: label maps of which nothing else is known.",
    )
    long_run: bool = Field(
        False,
        exclude_if=only_if_not(False),
        description="Train one more model per fold from random weights, with the steps of stem, "
        "trials and finish together, the optimizer of `soup.finish` and its first rate: what the "
        "same computing time gives without any soup.",
    )

    @model_validator(mode="after")
    def _layouts_are_of_test_sets(self) -> Comparison:
        for name in self.test_set_layouts:
            if name not in self.test_sets:
                hint = did_you_mean(name, self.test_sets)
                raise ValueError(f"`test_set_layouts` names `{name}`, which is no test set{hint}")
        return self

    @field_validator("other_tools")
    @classmethod
    def _tools_are_told_apart(cls, value: dict[str, str]) -> dict[str, str]:
        names = [name.lower() for name in value]
        if len(set(names)) < len(names):
            raise ValueError("two names differ in upper and lower case only")
        if "ensemble" in names:
            raise ValueError("`Ensemble` is what tables call the study's own: take another name")
        empty = [name for name, folder in value.items() if not folder]
        if empty:
            raise ValueError(f"`{empty[0]}` names no folder")
        if len(set(value.values())) < len(value):
            raise ValueError("names a folder twice")
        return value


class Metrics(Section):
    """Metrics on test cases, in addition to Dice and loss, by which models are chosen."""

    names: list[MetricName] = Field(
        ["hd95", "nsd", "sensitivity", "precision", "lesion_dice", "lesion_hd95"],
        description="`hd95`: 95th percentile of the Hausdorff distance in mm; `nsd`: normalised "
        "surface Dice; `sensitivity`; `precision`; `lesion_dice`, `lesion_hd95`: "
        "lesion by lesion, as the BraTS challenges have scored since 2023; or a metric of "
        "another package (docs/plug-ins.md).",
    )
    surface_tolerance: float = Field(
        1.0, gt=0, description="Distance in mm up to which `nsd` counts two surfaces as the same."
    )
    lesion_dilation: int = Field(
        3,
        ge=0,
        description="Voxels by which lesions of the ground truth are dilated; lesions that then "
        "touch count as one.",
    )
    lesion_smallest: float = Field(
        50,
        ge=0,
        description="Lesions of at most this volume in mm³ do not count, unless all lesions of a "
        "case's region are that small.",
    )
    penalty_distance: float | None = Field(
        None,
        gt=0,
        exclude_if=lambda distance: distance is None,
        description="Distance in mm that `hd95` and `lesion_hd95` count where a region or a lesion "
        "is in only one of prediction and ground truth. By default the diagonal of the scan, and "
        "BraTS's 374 for the layouts `brats` and `phantom`.",
    )

    @field_validator("names")
    @classmethod
    def _names_differ(cls, value: list[str]) -> list[str]:
        if len(set(value)) != len(value):
            raise ValueError("names the same twice")
        return value


class Replacement(Section):
    """The replacement of a region that came out too small to be plausible."""

    region: Name = Field(
        ..., description="Region that is emptied if too little of it was predicted, such as ET."
    )
    by: Name = Field(..., description="Region that gets its voxels, such as TC.")
    below: list[SomeCubicMillimetres] = Field(
        ...,
        min_length=1,
        description="Volumes in mm³ to try; a region with less than the chosen volume in a case "
        "is replaced.",
    )

    @model_validator(mode="after")
    def _regions_differ(self) -> Replacement:
        if self.region == self.by:
            raise ValueError("`region` and `by` must be two different regions")
        return self


class PostprocessingSearch(Section):
    """What is tried on the predictions of a fold's selection cases, once for all recipes."""

    thresholds: list[Probability] = Field(
        [0.3, 0.4, 0.5, 0.6, 0.7],
        min_length=1,
        description="Probabilities above which a voxel belongs to a region, chosen per region; "
        "0.5 is always among those tried.",
    )
    smallest_components: list[CubicMillimetres] = Field(
        [0, 10, 50, 100, 500],
        min_length=1,
        description="Volumes in mm³ below which a connected component is dropped, chosen per "
        "region; 0, which drops none, is always among those tried.",
    )
    replace: Replacement | None = Field(
        None,
        description="Replace a region that came out too small by another one, as is common for "
        "BraTS, where a tiny enhancing tumour is relabelled as necrosis (Isensee et "
        "al. 2020); null never replaces.",
    )

    @property
    def searches(self) -> bool:
        """Whether there is anything to choose from."""
        return len(self.thresholds_tried) * len(self.smallest_tried) > 1 or bool(self.replace)

    @property
    def thresholds_tried(self) -> list[float]:
        """Rising, with 0.5."""
        return sorted({*self.thresholds, 0.5})

    @property
    def smallest_tried(self) -> list[float]:
        """Rising, in mm³, from 0."""
        return sorted({*self.smallest_components, 0.0})
