"""Section ``soup``: which soups are made of the trials, and how."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from voxelsoup.study.sections.base import Section, only_if_not
from voxelsoup.study.sections.plug_in_name import NameOf
from voxelsoup.study.sections.removed_recipes import check_removed, without_unused_settings
from voxelsoup.study.sections.training import Optimizer, ScheduleName

WeightsKind = Literal["averaged", "raw"]
# How ingredients are chosen and averaged; all but those of `NO_SOUPS` make a soup.
RecipeName = Annotated[str, NameOf("recipes")]
NO_SOUPS = ("best", "ensemble")
# A model trained on for a while: one of the soups, and the best single model.
FINISHED, FINISHED_BEST = "finished", "finished-best"
Rate = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class FinishOptimizer(Optimizer):
    """Optimizer and schedule of a finish; its learning rates are the finish's `rates`."""

    schedule: ScheduleName = Field(
        "cosine", description="As `optimizer.schedule`; a `cosine` falls to 0."
    )
    lr: float = Field(0.0027, gt=0, exclude=True, description="Not here: `rates` are tried.")


class Finish(Section):
    """A soup trained on for a short while, towards its trials' ensemble as well as the labels.

    Noothout et al., Knowledge distillation with ensembles of convolutional neural networks for
    medical image segmentation, Journal of Medical Imaging 2022.
    """

    of: Annotated[str, NameOf("recipes", without=("ensemble",))] = Field(
        "greedy",
        description="The soup that is trained on; `best` is the best single model alone. Beside a "
        "soup the best single model is always finished in the same way, as a control.",
    )
    epochs: int | None = Field(
        None, ge=1, description="Epochs of a finish; null: as many as `training.epochs`."
    )
    optimizer: FinishOptimizer = Field(
        FinishOptimizer(),
        description="Optimizer and schedule; by default AdamW with a cosine to 0. Its learning "
        "rates are `rates`.",
    )
    rates: list[Rate] = Field(
        [0.001, 0.0003],
        min_length=1,
        description="Learning rates to try; the finished model with the highest selection Dice is "
        "taken, the first one of equal ones.",
    )
    ensemble_share: float = Field(
        0.5,
        ge=0,
        le=1,
        description="Share of the training target that is the probability of the ensemble (of "
        "`soup.ensemble_of`); the rest is the label. 0 needs no ensemble.",
    )
    unlabelled: bool = Field(
        False,
        description="Train on the data set's unlabelled cases too (`dataset.unlabelled: predict`), "
        "with the probability of the ensemble as their target.",
    )

    @field_validator("rates")
    @classmethod
    def _rates_differ(cls, value: list[float]) -> list[float]:
        if len(set(value)) != len(value):
            raise ValueError("names the same rate twice")
        return value

    @field_validator("optimizer")
    @classmethod
    def _rates_are_apart(cls, value: FinishOptimizer) -> FinishOptimizer:
        if "lr" in value.model_fields_set:
            raise ValueError(
                "the learning rates of a finish are `soup.finish.rates`: leave out `lr`"
            )
        return value

    @model_validator(mode="after")
    def _unlabelled_need_the_ensemble(self) -> Finish:
        if self.unlabelled and self.ensemble_share == 0:
            raise ValueError(
                "`unlabelled` cases have no target but the ensemble's: `ensemble_share` must be "
                "above 0"
            )
        return self

    @property
    def models(self) -> list[str]:
        """What is finished: the soup, and the best single model."""
        return [FINISHED_BEST] if self.of == "best" else [FINISHED, FINISHED_BEST]


class Soup(Section):
    """Which soups are made of the trials."""

    recipes: list[RecipeName] = Field(
        ["greedy", "uniform"],
        min_length=1,
        description="`greedy`: best first, an ingredient is kept if it strictly improves the "
        "selection Dice of the average (Wortsman et al. 2022); `uniform`: the average "
        "of all; `best`: the best single model; `ensemble`: not a "
        "soup but what soups replace, the mean of the probabilities of all "
        "ingredients, each of which is run on every case; or a recipe of another package "
        "(docs/plug-ins.md).",
    )
    ensemble_of: Annotated[str, NameOf("recipes", also=("all",), without=NO_SOUPS)] = Field(
        "all",
        description="Models of the `ensemble`: `all` ingredients, or those that another of the "
        "study's `recipes` kept.",
    )
    weights: list[WeightsKind] = Field(
        ["averaged"],
        min_length=1,
        description="Which weights of a schedule-free run are ingredients: `averaged`, those to "
        "evaluate; `raw`, those at which gradients are taken, which are worse alone "
        "and often better in soups. Other schedules have one kind only.",
    )
    race: float | None = Field(
        None,
        gt=0,
        lt=0.5,
        description="Stop a candidate when a paired test on the cases seen so far says that it "
        "will not win, at this error rate; null stops only a candidate that can no "
        "longer win.",
    )
    at_once: int = Field(
        1,
        ge=1,
        description="Candidates evaluated at the same time, each on its own GPU if there are "
        "GPUs; the outcome is the same.",
    )
    finish: Finish | None = Field(
        None,
        exclude_if=only_if_not(None),
        description="Train the soup on for a short while, towards the ensemble's probabilities as "
        "well as the labels: one network at the ensemble's level (docs/souping.md). See below.",
    )
    barrier_cases: int = Field(
        4,
        ge=1,
        description="Selection cases, from the easiest to the hardest, on which the barriers "
        "between the best model and the others are measured.",
    )
    barrier_models: int = Field(
        40,
        ge=2,
        description="Models of a fold between which barriers and distances are measured: the best "
        "one, and others from the second best to the worst, equally spaced in rank.",
    )
    barrier_points: int = Field(
        3,
        ge=1,
        description="Equally spaced points on the straight line between two models at which the "
        "loss is measured; odd, so that their average is one of them.",
    )

    @model_validator(mode="before")
    @classmethod
    def _no_recipe_was_removed(cls, value: Any) -> Any:
        """One message on a removed recipe, before what it makes wrong of single settings."""
        settings = without_unused_settings(value)
        check_removed(settings)
        return settings

    @field_validator("recipes", "weights")
    @classmethod
    def _names_differ(cls, value: list[str]) -> list[str]:
        if len(set(value)) != len(value):
            raise ValueError("names the same twice")
        return value

    @field_validator("barrier_points")
    @classmethod
    def _the_middle_is_a_point(cls, value: int) -> int:
        if value % 2 == 0:
            raise ValueError("must be odd, so that the middle of the line is among the points")
        return value

    @model_validator(mode="after")
    def _the_finished_soup_is_made(self) -> Soup:
        if self.finish and self.finish.of not in ("best", *self.recipes):
            raise ValueError(
                f"`finish.of` is `{self.finish.of}`, which `recipes` does not name: add it there, "
                "or finish another soup"
            )
        return self

    @property
    def averaging_recipes(self) -> list[RecipeName]:
        """The recipes that make one model; an ensemble stays several."""
        return [recipe for recipe in self.recipes if recipe != "ensemble"]
