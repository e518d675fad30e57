"""Configurations: alternatives whose models cannot be averaged with each other."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from voxelsoup.study.sections.base import PathText, Section

# Also a prefix of rules' names.
ConfigurationName = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_]*$")]
Settings = dict[str, Any]


class Configuration(Section):
    """Settings of one configuration in place of the study's; what it leaves out is the study's."""

    network: Settings = Field(
        {}, description="Settings of `network`; with `name`, the whole section."
    )
    preprocess: Settings = Field({}, description="Settings of `preprocess`.")
    training: Settings = Field({}, description="Settings of `training`, such as `patch`.")
    optimizer: Settings = Field({}, description="Settings of `optimizer`.")
    stem: Settings = Field({}, description="Settings of `stem`.")


class PartOf(Section):
    """Of which study this is a configuration; the workflow writes it."""

    configuration: ConfigurationName = Field(..., description="Its name.")
    results: PathText = Field(
        ..., description="Results of the study, whose cases and folds it has."
    )
    preprocessed: PathText | None = Field(
        None, description="Results of the configuration that preprocesses in the same way."
    )
