"""Sections about the finished model: its bundle, and the scans it is to segment."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from voxelsoup.study.sections.base import Name, PathText, Section, only_if_not
from voxelsoup.study.sections.data import LayoutOfOthers


class Bundle(Section):
    """The model to hand over: what its metadata and its card say in addition to the results."""

    name: Name = Field("voxelsoup_model", description="Name of the bundle.")
    version: str = Field("1.0.0", min_length=1, description="Version of the bundle.")
    authors: str = Field("not stated", min_length=1, description="Who made the model.")
    licence: str = Field(
        "not stated",
        min_length=1,
        description="Licence of the weights, such as CC-BY-4.0; the licence of the data may "
        "restrict it.",
    )
    modality: str = Field("MR", min_length=1, description="Kind of the scans: `MR`, `CT`, ...")
    data_source: str = Field(
        "not stated", min_length=1, description="Where the scans come from, and their licence."
    )
    intended_use: str = Field(
        "Research. Not a medical device: not to be used for diagnosis or treatment.",
        min_length=1,
        description="What the model is for.",
    )


class Predict(Section):
    """Scans to segment with the study's models: `snakemake predict`, which `all` leaves out."""

    input: PathText | None = Field(
        None,
        description="Folder of scans, with or without label maps, in any layout; null: nothing is "
        "predicted. Relative paths count from the working directory.",
    )
    layout: LayoutOfOthers | None = Field(
        None,
        exclude_if=only_if_not(None),
        description="Layout of `input`, as in `dataset.layout`; null: it is found out, among those "
        "of docs/data.md. One of another package has to be named.",
    )
    output: PathText | None = Field(
        None,
        description="Folder for the label maps, `CASE.nii.gz` in the scan's own geometry; null: "
        "`predictions` in the results folder.",
    )
    models: list[PathText] | None = Field(
        None,
        min_length=1,
        description="Model files or bundles, whose probabilities are averaged; null: the final "
        "model if the study has `final`, else the first soup of `soup.recipes` (otherwise the best "
        "single model) of every fold that the study runs.",
    )
    channels: list[str] | None = Field(
        None,
        description="What the scans' folder calls `dataset.channels`, in the same order, or their "
        "numbers in it from 0; null: they are matched by name (docs/data.md).",
    )
    cases_per_job: int = Field(20, ge=1, description="Cases that one job predicts.")
    overlap: float | None = Field(
        None,
        ge=0,
        lt=1,
        description="Overlap of neighbouring windows, as a share of the patch; null: that of "
        "`evaluation`.",
    )
    flips: bool = Field(
        False,
        description="Average over the mirror images along x, y and z, or along those of "
        "`training.mirror_axes` of the models: 8 times the work for three axes.",
    )
    every_window: bool = Field(
        False,
        description="Also predict windows outside the foreground, where all channels are 0; "
        "otherwise the probabilities there are 0.",
    )
    postprocess: bool = Field(
        False,
        description="Apply the post-processing that was chosen for the models' fold; those of "
        "several folds have to be the same.",
    )
    probabilities: bool = Field(
        False, description="Also write `probabilities/CASE.nii.gz`, float32 (x, y, z, region)."
    )
    naming: Literal["case", "brats"] = Field(
        "case",
        description="`brats` refuses case names that the BraTS challenges do not accept.",
    )
    label_order: dict[Name, int] | None = Field(
        None,
        description="Label value that each region writes, in this order, later ones over earlier "
        "ones; null: the order follows from the regions (docs/predict.md).",
    )
