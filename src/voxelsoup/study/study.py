"""The study: all that ``config.yaml`` may say, and the checks that concern several sections."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from pydantic import Field, field_validator

from voxelsoup.common.errors import InputError
from voxelsoup.common.text import did_you_mean
from voxelsoup.study.sections.base import Name, PathText, Section, only_if_not
from voxelsoup.study.sections.bundle import Bundle, Predict
from voxelsoup.study.sections.configuration import Configuration, ConfigurationName, PartOf
from voxelsoup.study.sections.data import (
    BY_REGIONS,
    Dataset,
    Folds,
    Preprocess,
    regions_not_annotated,
)
from voxelsoup.study.sections.elsewhere import GivenModel
from voxelsoup.study.sections.evaluation import (
    Comparison,
    Evaluation,
    Metrics,
    PostprocessingSearch,
    Primary,
    primary_model,
)
from voxelsoup.study.sections.notify import Notify
from voxelsoup.study.sections.resources import Recovery, Resources
from voxelsoup.study.sections.soup import Soup
from voxelsoup.study.sections.sweep import Sweep
from voxelsoup.study.sections.tracking import Tracking
from voxelsoup.study.sections.training import Network, Optimizer, Stem, Training

# The model of one run from random weights that gets the steps of all others.
LONG_RUN = "long-run"
# Stands for the number of a fold where a run is of the final model, which has none.
FINAL = -1
# The diagonal of a BraTS volume in mm, to the millimetre.
BRATS_PENALTY = 374.0


class Study(Section):
    """A declared study: from a folder of scans to one model."""

    results: PathText = Field(
        "results",
        min_length=1,
        description="Folder for all results. In all paths of a study `~`, `$VAR` and `${VAR}` are "
        "replaced, and `results/` is the same as `results`.",
    )
    dataset: Dataset = Field(..., description="The labelled scans.")
    regions: dict[Name, list[int]] = Field(
        ...,
        min_length=1,
        description="What is segmented: named unions of label values, which may overlap; one "
        "sigmoid output each.",
    )
    folds: Folds = Field(default_factory=Folds, description="Cross-validation.")
    evaluation: Evaluation = Field(default_factory=Evaluation, description="Scoring.")
    metrics: Metrics = Field(default_factory=Metrics, description="Metrics on test cases.")
    preprocess: Preprocess = Field(default_factory=Preprocess, description="From scans to arrays.")
    network: Network = Field(default_factory=Network, description="The network.")
    training: Training = Field(default_factory=Training, description="One run's training.")
    optimizer: Optimizer = Field(default_factory=Optimizer, description="Optimizer of the trials.")
    stem: Stem = Field(
        default_factory=Stem,
        description="The shared initialisation from which all trials of a fold are fine-tuned; "
        "short forms: `none`, or the path of a file of weights.",
    )
    sweep: Sweep = Field(default_factory=Sweep, description="What the trials differ in.")
    soup: Soup = Field(default_factory=Soup, description="How soups are made.")
    ingredients: list[GivenModel] = Field(
        [],
        exclude_if=only_if_not([]),
        description="Models that the project did not train, of the study's network: in each fold "
        "they are scored as the trials are, and are candidates of its soups and for its best "
        "single model. The same file in each fold: state what it has `seen`.",
    )
    comparison: Comparison = Field(
        default_factory=Comparison,
        exclude_if=only_if_not(Comparison()),
        description="What models are compared on.",
    )
    postprocessing: PostprocessingSearch = Field(
        default_factory=PostprocessingSearch,
        description="What is tried on predictions. `thresholds: [0.5]`, `smallest_components: "
        "[0]` and no `replace` leave them unchanged.",
    )
    bundle: Bundle = Field(default_factory=Bundle, description="The model to hand over.")
    predict: Predict = Field(
        default_factory=Predict, description="Scans to segment with the study's models."
    )
    resources: Resources = Field(
        default_factory=Resources, description="What jobs need from the machine."
    )
    recovery: Recovery = Field(default_factory=Recovery, description="What a crash may cost.")
    tracking: Tracking = Field(
        default_factory=Tracking,
        exclude_if=only_if_not(Tracking()),
        description="A tracker that the runs are mirrored to (docs/tracking.md); short form: "
        "`mlflow`, `wandb` or `none`.",
    )
    notify: Notify = Field(
        default_factory=Notify,
        exclude_if=only_if_not(Notify()),
        description="Who hears that a study has ended that was started by `voxelsoup submit`.",
    )
    final: bool = Field(
        False,
        exclude_if=only_if_not(False),
        description="After the folds, train one network on all labelled cases: the trials that "
        "greedy kept in at least half of the folds, from a stem on all cases, averaged and "
        "finished (docs/final.md). `final/model.safetensors` in the results folder is then what "
        "bundle and `predict` take.",
    )
    configurations: dict[ConfigurationName, Configuration] = Field(
        {},
        exclude_if=only_if_not({}),
        description="Alternatives whose models cannot be averaged with each other, such as another "
        "network, patch, spacing or normalisation: name -> the settings that differ. Each has "
        "stems, trials, soups and finish of its own; the study itself is the configuration "
        "`first` (docs/configurations.md).",
    )
    part_of: PartOf | None = Field(
        None,
        exclude_if=only_if_not(None),
        description="Written by the workflow: of which study this is a configuration.",
    )
    on_code_change: Literal["keep", "redo"] | None = Field(
        None,
        exclude_if=only_if_not(None),
        description="What a start does with results of another version of the code, where the "
        "difference may change numbers: `keep` takes them as they are, `redo` makes them again. "
        "Without it the start names them and stops. Meant for one start: "
        "`snakemake --config on_code_change=keep`.",
    )

    @field_validator("regions", mode="before")
    @classmethod
    def _regions_are_chosen(cls, value: object) -> object:
        if value == {}:
            raise ValueError(
                "names no region: take one of the choices that `voxelsoup init` wrote above it, or "
                "name the regions and their label values"
            )
        return value

    @field_validator("regions")
    @classmethod
    def _regions_are_labels(cls, value: dict[str, list[int]]) -> dict[str, list[int]]:
        for region, labels in value.items():
            if not labels:
                raise ValueError(f"region `{region}` names no label value")
            if len(set(labels)) != len(labels):
                raise ValueError(f"region `{region}` names a label value twice")
            wrong = [label for label in labels if not 1 <= label <= 255]
            if wrong:
                raise ValueError(f"region `{region}` has label {wrong[0]}; labels are 1 to 255")
        if len({region.lower() for region in value}) != len(value):
            raise ValueError("two regions differ in upper and lower case only")
        if {region.lower() for region in value} & {"avg", "loss", "mean"}:
            raise ValueError("`avg`, `loss` and `mean` are rows of tables and cannot name a region")
        return value

    def not_annotated_in(self, case: str) -> list[str]:
        """Regions that nobody annotated in a case (``dataset.not_annotated``), in their order."""
        hidden = regions_not_annotated(self.dataset.not_annotated, case)
        return [region for region in self.regions if region in hidden]

    def some_unknown(self, cases: Iterable[str]) -> bool:
        """Whether the ground truth of some voxels of these cases is not known."""
        return self.dataset.ignore_label is not None or any(map(self.not_annotated_in, cases))

    @property
    def penalty_distance(self) -> float | None:
        """mm for a region that only prediction or ground truth has; None: the scan's diagonal."""
        given = self.metrics.penalty_distance
        brats = self.dataset.layout in ("brats", "phantom")
        return BRATS_PENALTY if given is None and brats else given

    @property
    def scored_metrics(self) -> Metrics:
        """The section ``metrics`` with the penalty distance that applies."""
        return self.metrics.model_copy(update={"penalty_distance": self.penalty_distance})

    @property
    def compared_recipes(self) -> list[str]:
        """All that is compared with the best single model: soups, ensemble, finished models..."""
        finished = self.soup.finish.models if self.soup.finish else []
        return [*self.soup.recipes, *finished, *[LONG_RUN] * self.comparison.long_run]

    @property
    def primary(self) -> Primary:
        """The question that the study asks, its default filled in."""
        asked = self.comparison.primary or Primary()
        return Primary(
            model=asked.model or primary_model(self.compared_recipes), against=asked.against
        )

    @property
    def labels(self) -> set[int]:
        """All label values that some region names."""
        return {label for labels in self.regions.values() for label in labels}


def folder_of(fold: int) -> str:
    """The folder of a fold's results, or of the final model's."""
    return "final" if fold == FINAL else f"fold{fold}"


def place_of(fold: int) -> str:
    """What people call a fold, or the final model's place."""
    return "final model" if fold == FINAL else f"fold {fold}"


def finish_epochs(study: Study) -> int:
    """Epochs of each finish of a study that has any."""
    assert study.soup.finish is not None
    return study.soup.finish.epochs or study.training.epochs


def finish_runs(study: Study) -> list[str]:
    """The finishes of a fold, as ``finish/<model>/<learning rate>``: where their files lie."""
    finish = study.soup.finish
    if finish is None:
        return []
    starts = dict.fromkeys([finish.of, "best"])
    return [f"finish/{start}/{rate}" for start in starts for rate in finish.rates]


def check_across_sections(study: Study, where: str) -> None:
    """Raise an InputError that names settings of different sections that do not go together."""
    _check_normalisation(study, where)
    _check_ignored(study, where)
    _check_not_annotated(study, where)
    _check_divisible(study, where)
    _check_ensemble(study, where)
    _check_long_run(study, where)
    _check_final(study, where)
    _check_primary(study, where)
    _check_replacement(study, where)
    _check_background(study, where)
    _check_balance(study, where)
    _check_gpus(study, where)
    _check_ingredients(study, where)
    _check_configurations(study, where)


def _check_configurations(study: Study, where: str) -> None:
    if not study.configurations:
        return
    if study.final:
        raise InputError(
            where,
            "`final` with `configurations`",
            "one configuration, whose trials are trained on all cases",
            "leave `final` out until a configuration is chosen; then make its settings the study's",
        )
    if "first" in study.configurations:
        raise InputError(
            where,
            "`configurations` has one that is called `first`, which the study itself is called",
            "another name",
            "rename it",
        )


def _check_ingredients(study: Study, where: str) -> None:
    if study.final and study.ingredients:
        raise InputError(
            where,
            f"`final` with the ingredient {study.ingredients[0].name}, which was trained elsewhere",
            "models that can be trained again, on all cases",
            "leave `ingredients` or `final` out",
        )
    names = [one.name for one in study.ingredients]
    twice = next((one for one in study.ingredients if names.count(one.name) > 1), None)
    if twice is not None:
        raise InputError(
            where,
            f"`ingredients` has two models that are called {twice.name}",
            "a name for each; by default it is that of the file",
            f"name one of them: {{file: {twice.file}, name: another}}",
        )


def _check_normalisation(study: Study, where: str) -> None:
    channels, asked = study.dataset.channels, study.preprocess.normalisation
    if isinstance(asked, dict) and set(asked) != set(channels):
        raise InputError(
            where,
            f"`preprocess.normalisation` names {', '.join(asked) or 'no channel'}",
            f"every channel once ({', '.join(channels)}), or one scheme for all",
            "name the channels of `dataset.channels`",
        )
    by_fold = study.preprocess.by_fold(channels)
    for name in study.preprocess.intensities or {}:
        if name not in by_fold:
            raise InputError(
                where,
                f"`preprocess.intensities` has constants of `{name}`, which is not a channel that "
                "`preprocess.normalisation` makes `ct`",
                f"constants of {', '.join(by_fold)}" if by_fold else "no constants",
                "correct the name, or leave `preprocess.intensities` out",
            )
    if by_fold and study.dataset.accept.missing_channels:
        # Its 0 is an intensity of the scanner, which each fold's constants make another number of.
        raise InputError(
            where,
            f"`dataset.accept.missing_channels` with `{by_fold[0]}` normalised by `ct`",
            "a scheme that knows no constants of folds, after which a missing channel is 0",
            "normalise it by `zscore`, or leave `missing_channels` out",
        )


def _check_ignored(study: Study, where: str) -> None:
    ignored = study.dataset.ignore_label
    held = [region for region, labels in study.regions.items() if ignored in labels]
    if held:
        raise InputError(
            where,
            f"`dataset.ignore_label` is {ignored}, which region `{held[0]}` holds too",
            "an ignored value that no region names: nothing is known of its voxels",
            f"take {ignored} out of `regions`, or leave `dataset.ignore_label` out",
        )


def _check_not_annotated(study: Study, where: str) -> None:
    for pattern, regions in study.dataset.not_annotated.items():
        unknown = [region for region in regions if region not in study.regions]
        if unknown:
            raise InputError(
                where,
                f"`dataset.not_annotated.{pattern}` names `{unknown[0]}`, which is no region"
                + did_you_mean(unknown[0], study.regions),
                f"some of {', '.join(study.regions)}",
                "name some of those",
            )
        if len(regions) == len(study.regions):
            raise InputError(
                where,
                f"`dataset.not_annotated.{pattern}` names every region",
                "cases in which at least one region is annotated",
                "take the cases out of the data set, or the annotated region out of the list",
            )


def _check_divisible(study: Study, where: str) -> None:
    divisors, patch = study.network.divisors, study.training.patch
    for side, divisor, axis in zip(patch, divisors or [], "xyz", strict=bool(divisors)):
        if side % divisor:
            raise InputError(
                where,
                f"`training.patch` is {patch}; {side} is not divisible by {divisor}",
                f"sides divisible by {divisor} along {axis}, by which {study.network.name} shrinks "
                "its input",
                f"take {-(-side // divisor) * divisor} instead of {side}"
                + _fewer_halvings(study, divisor),
            )


def _fewer_halvings(study: Study, divisor: int) -> str:
    key = "network.strides" if study.network.name == "MedNeXt" else "network.arguments.strides"
    return f", or set `{key}`: an axis of few voxels need not be halved so often" * (divisor > 1)


def _check_ensemble(study: Study, where: str) -> None:
    recipes, source = study.soup.recipes, study.soup.ensemble_of
    if "ensemble" in recipes and source not in ("all", *recipes):
        soups = [recipe for recipe in recipes if recipe not in ("ensemble", "best")]
        raise InputError(
            where,
            f"`soup.ensemble_of` is `{source}`, which `soup.recipes` does not name",
            f"one of {', '.join(['all', *soups])}",
            f"add `{source}` to `soup.recipes`, or take one of those",
        )


def _check_long_run(study: Study, where: str) -> None:
    if not study.comparison.long_run:
        return
    if study.soup.finish is None:
        raise InputError(
            where,
            "`comparison.long_run` in a study without `soup.finish`",
            "a finish, whose optimizer and first rate the long run takes",
            "set `soup.finish`, or leave `comparison.long_run` out",
        )
    if study.sweep.halving is not None:
        raise InputError(
            where,
            "`comparison.long_run` with `sweep.halving`",
            "trials whose steps are known before they run",
            "leave one of them out",
        )


def _check_final(study: Study, where: str) -> None:
    if not study.final:
        return
    if "greedy" not in study.soup.recipes:
        raise InputError(
            where,
            "`final` in a study without a greedy soup",
            "`greedy` among `soup.recipes`: its soups choose the trials of the final model",
            "add `greedy` to `soup.recipes`, or leave `final` out",
        )
    if study.soup.finish is not None and study.soup.finish.of != "greedy":
        raise InputError(
            where,
            f"`final` with `soup.finish.of: {study.soup.finish.of}`",
            "`of: greedy`: the final model is the finished average of the trials that greedy kept",
            "set `soup.finish.of: greedy`, or leave `final` out",
        )


def _check_primary(study: Study, where: str) -> None:
    asked, models = study.comparison.primary, study.compared_recipes
    if asked is None:
        return
    for key, name, known in (
        ("model", asked.model or models[0], models),
        ("against", asked.against, ["best", *(name for name in models if name != "best")]),
    ):
        if name not in known:
            raise InputError(
                where,
                f"`comparison.primary.{key}` is `{name}`, which this study does not make"
                + did_you_mean(name, known),
                f"one of {', '.join(known)}",
                "name one of those, or let the study make it",
            )
    if study.primary.model == asked.against:
        raise InputError(
            where,
            f"`comparison.primary` compares `{asked.against}` with itself",
            f"two of {', '.join(dict.fromkeys(['best', *models]))}",
            "name another model as `comparison.primary.model` or `against`",
        )


def _check_replacement(study: Study, where: str) -> None:
    replacement = study.postprocessing.replace
    if replacement is None:
        return
    for key, region in (("region", replacement.region), ("by", replacement.by)):
        if region not in study.regions:
            raise InputError(
                where,
                f"`postprocessing.replace.{key}` is `{region}`, which `regions` does not name"
                + did_you_mean(region, study.regions),
                f"one of {', '.join(study.regions)}",
                "name one of those, or leave `postprocessing.replace` out",
            )


def _check_background(study: Study, where: str) -> None:
    both = sorted(study.labels & set(study.dataset.background))
    if both:
        region = next(name for name, labels in study.regions.items() if both[0] in labels)
        raise InputError(
            where,
            f"`dataset.background` holds the label value {both[0]}, and so does region `{region}`",
            "a value in regions, or in the background",
            "take it out of one of them",
        )


def _check_balance(study: Study, where: str) -> None:
    columns = [by for by in study.folds.balance if by != BY_REGIONS]
    if columns and study.dataset.patients is None and study.dataset.layout != "table":
        raise InputError(
            where,
            f"`folds.balance` names the column `{columns[0]}`, and the data set has no table",
            f"`{BY_REGIONS}`, or a column of the table `dataset.patients`",
            f"list the cases in a table with the columns `case`, `patient` and `{columns[0]}`, and "
            "name it as `dataset.patients`",
        )


def _check_gpus(study: Study, where: str) -> None:
    count, runs = study.resources.training.gpu, study.resources.runs_per_gpu
    batch = study.training.batch_size
    if count > 1 and batch % count:
        raise InputError(
            where,
            f"`training.batch_size` is {batch}, which {count} GPUs cannot share equally "
            "(`resources.training.gpu`)",
            f"a multiple of {count}",
            f"take {-(-batch // count) * count} patches per step, or GPUs whose number divides it",
        )
    if runs > 1 and max(count, study.resources.evaluation.gpu) > 1:
        raise InputError(
            where,
            f"`resources.runs_per_gpu` is {runs}, and one run takes several GPUs "
            "(`gpu` of `resources.training` or `resources.evaluation`)",
            "several runs on one GPU, or several GPUs for one run",
            "set one of them to 1",
        )
