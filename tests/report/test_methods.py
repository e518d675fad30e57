"""The methods paragraph: true for every study, and good English."""

from __future__ import annotations

import itertools
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from voxelsoup.common.plug_ins import BUILT_IN
from voxelsoup.common.provenance import FORMER_NAME, NAME
from voxelsoup.common.text import counted, counted_range, listed, magnitude
from voxelsoup.report.methods.methods import (
    FoldSize,
    Methods,
    StudyFacts,
    methods,
    trials_sentence,
)
from voxelsoup.report.methods.words import WORKS
from voxelsoup.study.loading import load

REPOSITORY = Path(__file__).parents[2]
VERSIONS = {
    "voxelsoup": "0.1.0",
    "python": "3.11.7",
    "torch": "2.13.0",
    "monai": "1.6.1",
    "schedulefree": "1.4.1",
    "snakemake": "9.27.1",
}
FACTS = StudyFacts(
    cases=30,
    patients=24,
    folds={0: FoldSize(14, 6, 10), 1: FoldSize(15, 5, 10)},
    parameter_count=12_345,
    devices=["cpu"],
    sources=["commit 0123abc"],
)


def written(facts: StudyFacts = FACTS, **changes: dict[str, Any]) -> Methods:
    """The methods of the shipped study with sections merged into it."""
    study = yaml.safe_load((REPOSITORY / "config.yaml").read_text())
    for section, values in changes.items():
        study[section] = study.get(section, {}) | values
    return methods(load(study), VERSIONS, facts)


# A study that measures, searches and tests all there is.
EVERYTHING: dict[str, dict[str, Any]] = {
    "metrics": {"names": ["hd95", "nsd", "precision", "lesion_dice"], "lesion_dilation": 3},
    "postprocessing": {
        "thresholds": [0.4],
        "smallest_components": [10, 50],
        "replace": {"region": "ET", "by": "TC", "below": [100]},
    },
}
NOTHING_TO_SEARCH = {"thresholds": [0.5], "smallest_components": [0], "replace": None}


def test_the_paragraph_describes_data_network_training_soups_and_evaluation() -> None:
    text = written().paragraph
    for phrase in (
        "30 cases",
        "4 input channels (t1n, t1c, t2w and t2f)",
        "3 overlapping regions: TC (labels 1 and 3)",
        "oriented to RAS",
        "14 or 15 cases for training, 5 or 6 cases for model selection and 10 cases for testing",
        "12,345 parameters",
        "32 × 32 × 32 voxels",
        "4 trials per fold, 8 trained models in all",
        "12 candidate models per fold",
        "scored once on the fold's test cases",
        "voxelsoup 0.1.0 (commit 0123abc)",
        "trained on a CPU",
    ):
        assert phrase in text


def test_references_are_numbered_as_cited_and_every_one_of_them_is_cited() -> None:
    result = written()
    marks = [
        int(n) for mark in re.findall(r"\[([\d, ]+)\]", result.paragraph) for n in mark.split(",")
    ]
    first_seen = list(dict.fromkeys(marks))
    assert first_seen == list(range(1, len(result.references) + 1))


@pytest.mark.parametrize(
    ("changes", "cited"),
    [
        ({}, {"soups"}),
        ({"soup": {"recipes": ["ensemble"]}}, set()),
        ({"optimizer": {"name": "radam", "schedule": "constant"}}, {"radam", "soups"}),
        ({"optimizer": {"schedule": "schedule-free"}}, {"adamw", "schedule-free", "soups"}),
        ({"metrics": {"names": ["nsd"]}}, {"soups", "surface-dice"}),
        ({"soup": {"finish": {}}}, {"soups", "distillation", "adamw"}),
        ({"soup": {"finish": {"ensemble_share": 0}}}, {"soups", "adamw"}),
    ],
)
def test_methods_cite_only_methods_that_the_study_uses(
    changes: dict[str, Any], cited: set[str]
) -> None:
    plain: dict[str, dict[str, Any]] = {
        "optimizer": {"name": "adamw", "schedule": "constant"},
        "stem": {"source": "none", "optimizer": None},
        "sweep": {"grid": {"training.seed": [0, 1]}},
        "soup": {"recipes": ["greedy"]},
        "metrics": {"names": []},
        "postprocessing": NOTHING_TO_SEARCH,
    }
    if "optimizer" not in changes:
        cited = cited | {"adamw"}
    one_fold = replace(FACTS, folds={0: FACTS.folds[0]})
    references = written(one_fold, **(plain | changes)).references
    always = {"mednext", "monai", "nnunet", "snakemake", "bootstrap", "holm", "wilcoxon"}
    assert {name for name, work in WORKS.items() if work in references} == cited | always


@pytest.mark.parametrize("layout", BUILT_IN["layouts"])
def test_methods_describe_every_layout(layout: str) -> None:
    dataset = {"layout": layout} if layout == "phantom" else {"layout": layout, "root": "scans"}
    assert "with 4 input channels" in written(dataset=dataset).paragraph


def test_networks_other_than_mednext_are_named_without_its_traits() -> None:
    study = yaml.safe_load((REPOSITORY / "config.yaml").read_text())
    study["network"] = {"name": "UNet", "arguments": {"channels": [8, 16], "strides": [2]}}
    result = methods(load(study), VERSIONS, FACTS)
    assert "The network was UNet (channels = (8, 16), strides = (2), 12,345" in result.paragraph
    assert "kernels" not in result.paragraph
    assert WORKS["mednext"] not in result.references


def test_the_published_protocol_is_called_optimistic() -> None:
    text = written(evaluation={"protocol": "published"}).paragraph
    assert "all reported scores are optimistic" in text
    assert "10 cases for both model selection and scoring" in text
    assert "scored once" not in text


def test_methods_list_a_swept_setting_with_its_values_only() -> None:
    grid = {"optimizer.lr": [0.001, 0.002, 0.004], "training.loss": ["dice", "dice-bce"]}
    text = written(sweep={"grid": grid}, stem={"source": "none"}).paragraph
    assert "learning rate (0.001, 0.002 and 0.004)" in text
    assert "loss (Dice and Dice with binary cross-entropy)" in text
    assert "learning rate 0.01" not in text
    assert "The loss was" not in text
    assert "6 trials per fold" in text


LR = {"optimizer.lr": [0.001, 0.002]}
RANDOM = {
    "count": 20,
    "seed": 4,
    "axes": {
        "optimizer.momentum": {"log-uniform": [0.1, 0.9]},
        "training.loss": {"choice": ["dice", "dice-bce"]},
    },
}


@pytest.mark.parametrize(
    ("sweep", "phrase"),
    [
        (
            {"zip": {"optimizer.lr": [0.001, 0.002], "training.epochs": [4, 2]}},
            "covered all values of learning rate with number of epochs (0.001 with 4 and 0.002 "
            "with 2): 2 trials per fold, 4 trained models in all. All trials had the random seed 0",
        ),
        (
            {"random": RANDOM},
            "covered 20 random samples (seed 4) of momentum (log-uniform from 0.1 to 0.9) and loss "
            "(Dice or Dice with binary cross-entropy, equally likely): 20 trials per fold",
        ),
        (
            {"grid": LR, "random": RANDOM},
            "all values of learning rate (0.001 and 0.002), each with 20 random samples (seed 4)",
        ),
        (
            {"trials": [{}, {"training.loss": "dice", "optimizer.lr": 0.5}]},
            "covered 2 given combinations (the settings above and loss Dice with learning rate "
            "0.5): 2 trials per fold",
        ),
        (
            {"trials": [{"optimizer.lr": number} for number in range(1, 9)]},
            "covered 8 given combinations of learning rate: 8 trials per fold",
        ),
        (
            {"grid": LR, "repeats": 3, "exclude": [{"optimizer.lr": {"above": 0.001}}]},
            "(0.001 and 0.002), each with 3 random seeds (0 to 2), without those with learning "
            "rate above 0.001: 3 trials per fold",
        ),
        (
            {"repeats": 2, "also": [{"grid": {"training.loss": ["dice", "dice-focal"]}}]},
            "covered the settings above, each with 2 random seeds (0 and 1), and in addition all "
            "values of loss (Dice and Dice with focal loss): 4 trials per fold, 8 trained models",
        ),
        (
            {"grid": LR, "exclude": [{"optimizer.lr": [0.001, 0.5], "optimizer.momentum": 0.9}]},
            "One trial was trained per fold (learning rate 0.002, seed 0), 2 trained models in all",
        ),
        ({"grid": {"training.gradient_clip": [None, 1]}}, "gradient (not set and 1): 2 trials"),
        ({"grid": {"optimizer.milestones": [[0.5], [0.2, 0.4]]}}, "((0.5) and (0.2, 0.4)): 2"),
    ],
)
def test_every_kind_of_sweep_is_described(sweep: dict[str, Any], phrase: str) -> None:
    assert phrase in written(sweep={"grid": {}} | sweep, stem={"source": "none"}).paragraph


def test_runs_from_before_the_project_was_renamed_are_reported_with_their_version() -> None:
    study = load(yaml.safe_load((REPOSITORY / "config.yaml").read_text()))
    recorded = {FORMER_NAME if key == NAME else key: value for key, value in VERSIONS.items()}
    assert methods(study, recorded, FACTS) == methods(study, VERSIONS, FACTS)


@pytest.mark.parametrize("rungs", [None, 2])
def test_the_trials_alone_are_reported_as_in_the_methods_without_citations(
    rungs: int | None,
) -> None:
    study = yaml.safe_load((REPOSITORY / "config.yaml").read_text())
    seeds: dict[str, Any] = {"training.seed": [0, 1], "optimizer.name": ["adamw", "sgd"]}
    study["sweep"] = {"grid": seeds, "halving": rungs and {"rungs": rungs, "keep": 0.5}}
    study["training"]["epochs"] = 8
    sentence = trials_sentence(load(study), FACTS)
    assert "optimizer (AdamW and stochastic gradient descent)" in sentence
    assert ("successive halving, all trials" in sentence) == (rungs is not None)
    text = re.sub(r" \[[\d, ]+\]", "", methods(load(study), VERSIONS, FACTS).paragraph)
    assert sentence in text


def test_halving_is_described_with_the_trials_that_continued() -> None:
    result = written(
        sweep={"grid": {"training.seed": list(range(12))}, "halving": {"rungs": 3, "keep": 0.33}},
        training={"epochs": 90},
    )
    assert (
        "to epoch 10, and of these, by their mean Dice on the selection cases" in result.paragraph
    )
    assert "the best 4 to epoch 30, then 2 to epoch 90" in result.paragraph
    assert "with 30 % of the epochs" in result.paragraph
    assert "trained models in all" not in result.paragraph
    assert WORKS["halving"] in result.references


def test_a_setting_that_only_some_trials_name_is_no_base_setting() -> None:
    sweep = {"grid": {}, "trials": [{"optimizer.lr": 0.5}, {"training.loss": "dice"}]}
    text = written(sweep=sweep, stem={"source": "none"}).paragraph
    assert "learning rate 0.01" not in text and "The loss was" not in text


def test_statistics_secondary_metrics_and_postprocessing_are_reported() -> None:
    result = written(**EVERYTHING)
    for part in (
        "The secondary metrics were the 95th percentile of the Hausdorff distance in mm",
        "at a tolerance of 1 mm",
        "after dilating the reference by 3 voxels",
        "those of at most 50 mm³",
        "the threshold of each region (0.4 or 0.5)",
        "were removed (0, 10 or 50 mm³)",
        "whether ET was replaced by TC where less than a volume (100 mm³) of it was left",
        "bootstrap confidence intervals",
        "patients being resampled within their fold with all of their cases",
    ):
        assert part in result.paragraph
    cited = ("bootstrap", "holm", "wilcoxon", "strata", "surface-dice", "replacement")
    assert {WORKS[work] for work in cited} <= set(result.references)


def test_the_primary_question_its_test_and_its_outcome_are_reported() -> None:
    outcome = "greedy soup better than best single model by 1.0 Dice points [0.4, 1.6], p = 0.002"
    text = written(replace(FACTS, answer=outcome)).paragraph
    for part in (
        "The primary question was whether the greedy soup is better than the best single model, by "
        "the mean Dice over all regions and folds.",
        "The primary comparison was tested by itself at a level of 5 % (95 % interval).",
        "All others were secondary: their p values were adjusted for each other by Holm's method",
        f"Outcome of the primary comparison: {outcome}.",
    ):
        assert part in text
    assert "Outcome" not in written().paragraph
    other = written(
        soup={"recipes": ["uniform", "ensemble"]},
        comparison={"primary": {"model": "ensemble", "against": "uniform"}},
    ).paragraph
    assert "whether the ensemble is better than the uniform soup" in other


def test_label_maps_of_other_tools_are_reported_as_made_elsewhere() -> None:
    text = written(comparison={"other_tools": {"nnU-Net": "maps"}}).paragraph
    assert "Label maps that nnU-Net had made of the same test cases were scored" in text
    assert "how it was trained, and on which cases, is not part of this study" in text
    both = written(comparison={"other_tools": {"nnU-Net": "maps", "monai": "others"}}).paragraph
    assert "Label maps that nnU-Net and monai had made" in both and "how they were" in both
    assert "Label maps" not in written().paragraph


def test_methods_omit_what_a_study_does_not_do() -> None:
    fold = replace(FACTS, folds={0: FACTS.folds[0]})
    result = written(fold, metrics={"names": []}, postprocessing=NOTHING_TO_SEARCH)
    for part in ("The secondary metric", "Lesions", "Post-processing", "within their fold"):
        assert part not in result.paragraph
        assert part in written(**EVERYTHING).paragraph
    uncited = ("strata", "surface-dice", "replacement")
    assert not {WORKS[work] for work in uncited} & set(result.references)


CHOICES: dict[str, list[dict[str, Any]]] = {
    "dataset": [
        {},
        {"layout": "nnunet", "root": "x", "channels": ["mri"]},
        {"layout": "brats", "root": "x"},
    ],
    "stem": [{"source": "none"}, {"source": "checkpoint", "checkpoint": "a.safetensors"}, {}],
    "sweep": [
        {"grid": {}},
        {"grid": {"training.seed": [1]}},
        {"grid": {"training.epochs": [3, 4]}},
        {"grid": {}, "random": {"count": 1, "axes": {"optimizer.lr": {"uniform": [1, 2]}}}},
        {"grid": {}, "trials": [{}, {"optimizer.lr": 0.5}], "repeats": 2},
    ],
    "soup": [
        {"recipes": ["best"]},
        {"recipes": ["greedy", "uniform", "ensemble"], "race": 0.05},
        {"recipes": ["ensemble"], "weights": ["raw"]},
        {"recipes": ["greedy"], "finish": {"unlabelled": True}},
        {"recipes": ["greedy"], "finish": {"of": "best", "ensemble_share": 0, "rates": [0.1]}},
    ],
    "preprocess": [{}, {"crop": False, "spacing": [1, 1, 2.5], "normalisation": "none"}],
}


@pytest.mark.parametrize("folds", [{3: FoldSize(1, 1, 1)}, FACTS.folds])
def test_every_study_is_described_in_correct_sentences(folds: dict[int, FoldSize]) -> None:
    facts = replace(FACTS, folds=folds, cases=1 if len(folds) == 1 else 9, patients=1)
    for combination in itertools.product(*CHOICES.values()):
        result = written(facts, **EVERYTHING, **dict(zip(CHOICES, combination, strict=True)))
        for text in result.parts.values():
            assert re.match(r"[A-Z]", text) and text.endswith(".")
            assert not re.search(r"  | [,.;)]|\(\)|\.\.|,,|None|\bone \w+s\b|\b1 \w+s\b", text), (
                text
            )
            assert not re.search(r"\. [a-z]", text), text


def test_methods_write_numbers_and_lists_as_prose() -> None:
    assert [counted(n, "case") for n in (1, 2, 1200)] == ["one case", "2 cases", "1,200 cases"]
    assert counted(2, "study") == "2 studies"
    assert counted_range([5, 5], "case") == "5 cases"
    assert counted_range([6, 5], "case") == "5 or 6 cases"
    assert counted_range([9, 5, 6], "case") == "5 to 9 cases"
    assert [listed(parts) for parts in ("a", "ab", "abc")] == ["a", "a and b", "a, b and c"]
    assert [magnitude(n) for n in (950, 12_345, 10_520_000)] == ["950", "12,345", "10.5 million"]


def test_what_is_not_annotated_is_stated_with_the_data() -> None:
    hidden = "ET in 4 of 30 cases"
    assert (
        f"Not annotated were {hidden}: there"
        in written(replace(FACTS, not_annotated=[hidden])).parts["Data"]
    )
    assert "annotated" not in written().parts["Data"]
