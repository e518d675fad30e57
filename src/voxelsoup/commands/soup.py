"""The command `voxelsoup soup`: models that exist already averaged into one, without a study."""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from voxelsoup.commands.data_set import LAYOUT
from voxelsoup.commands.predict import print_remark
from voxelsoup.common.errors import InputError
from voxelsoup.common.text import counted

if TYPE_CHECKING:
    from voxelsoup.prediction.ground_truth import GroundTruth
    from voxelsoup.soups.given_models import ModelToAverage
    from voxelsoup.soups.selection import Selection
    from voxelsoup.soups.soup import Ingredient, SoupResult
    from voxelsoup.study.sections.elsewhere import Conversion
    from voxelsoup.study.study import Study

RECIPES = {"greedy": ("greedy",), "uniform": ("uniform",), "both": ("greedy", "uniform")}
MODEL, RECIPE, SCORES = "model.safetensors", "recipe.json", "selection.csv"
STATE, CONVERTED = ".state", "converted"
MADE_FROM = "made_from"


def add_options(parser: argparse.ArgumentParser) -> None:
    """The arguments and options of the command."""
    parser.add_argument(
        "models",
        nargs="+",
        type=Path,
        metavar="MODEL",
        help="two or more models of one network: model files or folders of this program, or files "
        "of another one (.safetensors, .pt, .pth, .ckpt, .model)",
    )
    parser.add_argument(
        "--select",
        required=True,
        metavar="CASES",
        help="a labelled data set in any layout, by whose mean Dice the recipe chooses; cases that "
        "no model was trained on",
    )
    parser.add_argument(
        "--recipe", choices=sorted(RECIPES), default="both", help="default: %(default)s"
    )
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        required=True,
        metavar="FOLDER",
        help="where the soups go; the same command again resumes",
    )
    parser.add_argument(
        "--study",
        type=Path,
        metavar="FILE",
        help="the study whose network, channels, regions, preprocessing and patch the models have "
        "(default: what a model file of this program says of itself)",
    )
    parser.add_argument(
        "--rename",
        action="append",
        default=[],
        metavar="PATTERN=REPLACEMENT",
        help="a rule that turns the tensors' names of foreign files into the network's, a regular "
        "expression; may be repeated. Or `rename` of `ingredients` in the study",
    )
    parser.add_argument(
        "--first-convolution",
        choices=("averaged", "repeated"),
        help="what is done to the first convolution of a file with another number of channels",
    )
    parser.add_argument(
        "--upkern", action="store_true", help="grow a MedNeXt's smaller kernels to the network's"
    )
    parser.add_argument(
        "--labels",
        type=Path,
        metavar="FOLDER",
        help="the label maps of CASES, where it has none of its own",
    )
    parser.add_argument(
        "--regions",
        metavar="REGIONS",
        help="which label values of CASES each region has: WT=1+2+3,TC=1+3,ET=3 (default: the "
        "models', or what the data set describes)",
    )
    parser.add_argument(
        "--channels", metavar="NAMES", help="what CASES calls the models' channels, in their order"
    )
    parser.add_argument("--layout", metavar="NAME", help=LAYOUT)
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument(
        "--threads",
        type=int,
        metavar="N",
        help="CPU threads (default: the cores that this process may use)",
    )


def soup_command(asked: argparse.Namespace) -> int:
    """Run the command; returns the exit code.

    Raises:
        InputError: if a model, an option or a case cannot be used, or the folder holds soups of
            other models.
    """
    if len(asked.models) < 2:
        raise InputError(
            "voxelsoup soup", "names one model", "two or more to average", "name further models"
        )
    stated = _conversion(asked)
    from voxelsoup.common.machine import usable_cores
    from voxelsoup.models import devices
    from voxelsoup.prediction.selection_cases import prepare_cases
    from voxelsoup.soups.given_models import check_all_differ, model_to_average
    from voxelsoup.soups.scorer import WeightsScorer, scoring_context
    from voxelsoup.soups.selection import Cache, Selection

    study = _study(asked)
    truth = _ground_truth(asked, study)
    models = [
        model_to_average(path, _ways(path, stated, study), study, asked.output / CONVERTED)
        for path in asked.models
    ]
    check_all_differ(models)
    study = _with_regions_of(truth, asked, study)
    threads = asked.threads or usable_cores()
    device = devices.prepare(asked.device, threads, "--device")
    arrays = asked.output / STATE / "preprocessed"
    print(f"{asked.select}: {counted(len(truth.cases), 'case')} to choose on", flush=True)
    fingerprints = prepare_cases(truth, study, asked.select, arrays, threads)
    cases = sorted(fingerprints)
    # Running statistics of batch norm, if there are any, come from the same cases.
    fold = {"selection": cases, "training": cases}
    context = scoring_context(study, fold, fingerprints)
    _check_output(asked, context, models)
    cache = Cache(asked.output / STATE / "candidates.jsonl", context)
    selection = Selection(cases, [WeightsScorer(study, fold, arrays, device)], cache)
    ingredients = _scored(models, selection)
    for name in RECIPES[asked.recipe]:
        _make(name, ingredients, selection, models, study, asked, context)
    return 0


def _conversion(asked: argparse.Namespace) -> Conversion:
    """What the options state of foreign files."""
    from pydantic import ValidationError

    from voxelsoup.study.loading import wrong_settings
    from voxelsoup.study.sections.elsewhere import Conversion

    rules = [rule.rpartition("=") for rule in asked.rename]
    if not all(pattern for pattern, _, _ in rules):
        raise InputError("--rename", "is no rule", "PATTERN=REPLACEMENT", "write a = between them")
    stated = {
        "rename": [{pattern: new} for pattern, _, new in rules],
        "first_convolution": asked.first_convolution,
        "upkern": asked.upkern,
    }
    try:
        return Conversion.model_validate(stated)
    except ValidationError as error:
        raise wrong_settings(error, "--rename") from error


def _ways(path: Path, stated: Conversion, study: Study) -> list[Conversion]:
    """What is tried on a file: nothing, then what the options or the study state of it."""
    from voxelsoup.study.sections.elsewhere import Conversion

    same = [one for one in study.ingredients if Path(one.file).absolute() == path.absolute()]
    ways = [Conversion(), *(one.conversion for one in same), stated]
    return [way for number, way in enumerate(ways) if way not in ways[:number]]


def _study(asked: argparse.Namespace) -> Study:
    """The study by whose network the models are built."""
    from voxelsoup.models import weight_files
    from voxelsoup.study.loading import load, read

    if asked.study is not None:
        study = read(asked.study)
        _check_constants(study, asked.study)
        return study
    for path in asked.models:
        file = path / MODEL if path.is_dir() else path
        if file.suffix == ".safetensors":
            stated = weight_files.shapes(file)[1]
            if stated:
                training = {"patch": stated["patch"]}
                if "mirror_axes" in stated:
                    training["mirror_axes"] = stated["mirror_axes"]
                content = {
                    "dataset": {"channels": stated["channels"]},
                    **{key: stated[key] for key in ("network", "regions", "preprocess")},
                    "training": training,
                }
                return load(content, f"{file} (its header)")
    raise InputError(
        asked.models[0],
        "does not say which network it is of: it was not written by voxelsoup",
        "a study with the network, the channels, the regions, the preprocessing and the patch",
        "name it: --study STUDY.yaml (`voxelsoup init CASES` proposes one)",
    )


def _check_constants(study: Study, where: Path) -> None:
    known = study.preprocess.intensities or {}
    missing = [n for n in study.preprocess.by_fold(study.dataset.channels) if n not in known]
    if missing:
        raise InputError(
            where,
            f"normalises {missing[0]} by `ct`, whose constants are those of training cases",
            "the constants that the models were trained with",
            f"state them: `preprocess.intensities: {{{missing[0]}: {{lower: .., upper: .., mean: "
            "..., deviation: ...}}`",
        )


def _ground_truth(asked: argparse.Namespace, study: Study) -> GroundTruth:
    from voxelsoup.prediction.ground_truth import labelled_scans

    called = asked.channels.split(",") if asked.channels else None
    channels = study.dataset.channels
    return labelled_scans(asked.select, channels, called, asked.labels, print_remark, asked.layout)


def _with_regions_of(truth: GroundTruth, asked: argparse.Namespace, study: Study) -> Study:
    """The study with the label values that its regions have in the ground truth."""
    from voxelsoup.prediction.ground_truth import parse_regions, regions_of_truth

    if asked.regions is not None:
        stated = parse_regions(asked.regions)
        if sorted(stated) != sorted(study.regions):
            raise InputError(
                "--regions",
                f"names {', '.join(stated)}",
                f"each of the models' regions once: {', '.join(study.regions)}",
                "correct the option",
            )
        regions = {name: stated[name] for name in study.regions}
    else:
        regions = regions_of_truth(study.regions, truth.regions, asked.select)
    ignored = study.dataset.ignore_label if truth.ignored is None else truth.ignored
    dataset = study.dataset.model_copy(update={"ignore_label": ignored})
    return study.model_copy(update={"regions": regions, "dataset": dataset})


def _check_output(
    asked: argparse.Namespace, context: str, models: Sequence[ModelToAverage]
) -> None:
    """Refuse to replace soups of other models or cases."""
    from voxelsoup.common.files import read_json

    for recipe in RECIPES[asked.recipe]:
        path = asked.output / recipe / RECIPE
        if path.exists() and read_json(path).get(MADE_FROM) != _made_from(context, models):
            raise InputError(
                path,
                "is of other models, other cases or another study",
                "a folder without soups, or with those of the same command: nothing is replaced",
                "name another folder (--output FOLDER), or move this one away",
            )


def _made_from(context: str, models: Sequence[ModelToAverage]) -> str:
    from voxelsoup.common.files import json_sha256

    return json_sha256({"context": context, "models": sorted(model.sha256 for model in models)})


def _scored(models: Sequence[ModelToAverage], selection: Selection) -> list[Ingredient]:
    """The models with their scores on the selection cases, each reported as it is known."""
    from voxelsoup.soups.averaging import average
    from voxelsoup.soups.selection import CandidateSoup
    from voxelsoup.soups.soup import Ingredient, check_alike, in_equal_parts

    ingredients = [Ingredient(one.name, one.path, one.sha256, {}) for one in models]
    check_alike(ingredients)
    scored = []
    for number, one in enumerate(ingredients, 1):
        parts = in_equal_parts([one])
        before = selection.inferences
        outcome = selection.score_all(CandidateSoup(parts, partial(average, parts)))
        known = "" if selection.inferences > before else " (known)"
        print(
            f"model {number} of {len(models)}: {outcome.score:.4f} {one.trial}{known}", flush=True
        )
        scored.append(Ingredient(one.trial, one.path, one.sha256, outcome.scores))
    return scored


def _make(
    name: str,
    ingredients: Sequence[Ingredient],
    selection: Selection,
    models: Sequence[ModelToAverage],
    study: Study,
    asked: argparse.Namespace,
    context: str,
) -> None:
    """Make one soup, and write its weights, its record and its scores."""
    from voxelsoup.common.files import write_json
    from voxelsoup.evaluation.case_scores import rows_of, write_rows
    from voxelsoup.models import weight_files
    from voxelsoup.soups.recipes import RECIPES as ALL_RECIPES
    from voxelsoup.soups.scorer import WeightsScorer
    from voxelsoup.soups.soup import check_unchanged, recipe_record

    began, folder = time.monotonic(), asked.output / name
    made = ALL_RECIPES[name](ingredients, selection)
    check_unchanged(made.parts)
    (scorer,) = selection.scorers
    assert isinstance(scorer, WeightsScorer)
    weights = scorer.batch_norm_re_estimated(made.weights)
    description = weight_files.shapes(made.parts[0].path)[1]
    weight_files.save(folder / MODEL, weights, description)
    write_rows(folder / SCORES, rows_of(made.scores))
    of_file = {model.name: model.record() for model in models}
    record = {
        **recipe_record(name, made, selection, time.monotonic() - began),
        "selection": asked.select,
        "selection_cases": selection.cases,
        "files": [of_file[model.name] for model in models],
        MADE_FROM: _made_from(context, models),
    }
    write_json(folder / RECIPE, record)
    _print(name, made, ingredients, folder)


def _print(name: str, made: SoupResult, ingredients: Sequence[Ingredient], folder: Path) -> None:
    """The build-up of a soup, and what it scores beside the best single model."""
    print(f"\n{name}")
    for number, one in enumerate(made.decisions):
        if name == "uniform":
            print(f"  {one.single_score:.4f} alone  {one.trial}")
        elif number == 0:
            print(f"  {one.single_score:.4f} alone, the first  {one.trial}")
        else:
            at_most = "" if one.candidate_score is not None else "at most "
            score = one.at_most if one.candidate_score is None else one.candidate_score
            kept = "kept" if one.accepted else "left out"
            print(
                f"  {one.single_score:.4f} alone, with it {at_most}{score:.4f}: {kept}  {one.trial}"
            )
    gain = 100 * (made.score - max(one.score for one in ingredients))
    of = f"{len(made.parts)} of {counted(len(ingredients), 'model')}"
    print(f"  {made.score:.4f} the soup of {of}, {gain:+.2f} Dice points to the best single model")
    print("  on the cases that chose: score it on others with `voxelsoup evaluate`")
    print(f"  {folder / MODEL}, {folder / RECIPE}", flush=True)
