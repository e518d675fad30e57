"""Which modules decide the numbers of which results, against what the scripts import."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable
from functools import cache
from pathlib import Path

import pytest

from support.workflows import REPOSITORY
from voxelsoup.cluster.job_resources import RULES
from voxelsoup.common.code_version import DECIDING
from voxelsoup.runs.origins import KINDS

SOURCE = REPOSITORY / "src" / "voxelsoup"
# Packages and modules that change no number of a result, and why.
DECIDE_NOTHING = {
    "common": "files, errors, logs, words",
    "study": "settings, which are compared themselves",
    "runs": "leases, states and records",
    "cluster": "what jobs request",
    "data.case": "what a case is called and where its files lie",
    "data.index": "findings, which every start shows; the hashes of scans are compared",
    "data.layouts": "which files belong to a case, which the index shows",
    "data.preprocessing.store": "files of arrays",
    "data.volumes.gzip": "unpacks, with a checksum",
    "evaluation.case_scores": "files of scores",
    "evaluation.own_metrics": "hands masks to metrics of other packages, which are compared",
    "evaluation.kept_scores": "files of scores, by what these depend on",
    "evaluation.run_scores": "which scores are missing",
    "evaluation.tensorboard": "events",
    "models.devices": "where it is computed",
    "models.plug_ins": "checks networks and losses of other packages, which are compared",
    "models.weight_files": "files of weights",
    "planning": "proposals, and estimates of memory",
    "prediction": "files and outcomes; the numbers are those of `prediction.predictor`",
    "training.epochs": "speed",
    "training.job": "files of a run",
    "training.launch": "processes",
    "training.out_of_memory": "which settings would fit into a card",
    "training.data_workers": "processes that read what patches are made of, in order",
    "training.peers": "processes",
    "training.run": "settings of a run, which are compared themselves",
    "training.targets": "files of probabilities, which are compared themselves",
    "training.tensorboard": "events",
    "comparison.answer": "sentences",
    "comparison.conclusions": "sentences",
    "comparison.names": "names",
    "comparison.pages": "layout of tables",
    "comparison.tables": "layout of tables",
    "comparison.tool_rows": "scores of other tools as rows of tables, which compute with them",
    "report": "pictures and pages",
    "soups.compared_scores": "which scores are known",
    "soups.recipes": "the list of recipes",
}
# Kind -> what its rules import for parts that do not decide its numbers, or that are compared as
# those of the results that they read.
NOT_OF_THE_KIND: dict[str, set[str]] = {
    "folds": {"data.volumes"},
    "preprocessing": {"models.losses"},
    "conversion": {"data.regions", "models.losses"},
    # Its job scores what it has trained; the scores are those of `evaluate`.
    "training": {"data.preprocessing.geometry", "data.preprocessing.resample", "evaluation"},
    # The list that names the weights whose scores are known.
    "scores": {"evaluation.postprocessing", "soups.candidates"},
    "post-processing": {"soups.scorer", "training"},
    "soups": {"evaluation.lesions", "evaluation.metrics", "evaluation.surfaces"},
    # Names of cases and of their patients; what a finish trains with is compared with its run.
    "finish": {
        *("data.volumes", "evaluation.lesions", "evaluation.metrics", "evaluation.surfaces"),
    },
    "final": {"soups"},
    # Names, lists and files; the models are compared as results of their rules.
    "configurations": {"evaluation", "soups.averaging", "soups.candidates", "soups.selection"},
    "predictions": set(),
    "pairs": set(),
    "other tools": set(),
    # Names of cases and of their patients.
    "tables": {"data.volumes", "evaluation", "models.weight_files", "soups"},
}


def file_of(module: str) -> Path | None:
    """The file of a module of the project, by its name below ``voxelsoup``."""
    path = SOURCE.joinpath(*module.split("."))
    candidates = (path / "__init__.py", path.with_suffix(".py"))
    return next((file for file in candidates if file.is_file()), None)


def imported(file: Path) -> set[str]:
    """Modules of the project that a file imports, by their names below ``voxelsoup``."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("voxelsoup."):
            package = str(node.module).removeprefix("voxelsoup.")
            for name in node.names:
                inner = f"{package}.{name.name}"
                found.add(inner if file_of(inner) else package)
    return found


@cache
def closure(file: Path) -> frozenset[str]:
    """All modules of the project that a file imports, directly or not."""
    todo, seen = list(imported(file)), set()
    while todo:
        module = todo.pop()
        if module not in seen:
            seen.add(module)
            todo += imported(file_of(module))  # type: ignore[arg-type]
    return frozenset(seen)


def scripts() -> dict[str, Path]:
    """Rule -> its script."""
    found = {}
    for chapter in (REPOSITORY / "rules").glob("*.smk"):
        for rule, body in re.findall(
            r"^(?:rule|checkpoint) (\w+):\n((?:[ ]+.*\n|\n)+)", chapter.read_text(), re.MULTILINE
        ):
            script = re.search(r'"\.\./workflow/scripts/(\w+\.py)"', body)
            if script:
                found[rule] = REPOSITORY / "workflow" / "scripts" / script[1]
    for chapter in (REPOSITORY / "rules").glob("*.smk"):
        copies = re.findall(r"^use rule (\w+) as (\w+)", chapter.read_text(), re.MULTILINE)
        found |= {copy: found[rule] for rule, copy in copies}
    return found


def is_one_of(module: str, names: Iterable[str]) -> bool:
    return any(module == name or module.startswith(f"{name}.") for name in names)


@pytest.mark.parametrize("rule", sorted(KINDS))
def test_every_module_that_a_rule_imports_decides_its_numbers_or_is_listed(rule: str) -> None:
    deciding = {module for kind in KINDS[rule] for module in DECIDING[kind]}
    listed = set(DECIDE_NOTHING).union(*(NOT_OF_THE_KIND[kind] for kind in KINDS[rule]))
    found = closure(scripts()[rule]) - deciding
    assert {module for module in found if not is_one_of(module, listed)} == set()


@pytest.mark.parametrize("kind", sorted(DECIDING))
def test_every_module_of_the_table_is_imported_by_a_rule_of_its_kind(kind: str) -> None:
    files = [scripts()[rule] for rule, kinds in KINDS.items() if kind in kinds]
    assert files
    assert set(DECIDING[kind]) <= set().union(*map(closure, files))


def test_rules_without_a_kind_compute_no_numbers_of_their_own() -> None:
    assert set(RULES) - set(KINDS) == {
        *("phantom", "index", "halve", "candidates", "case_slices", "figures", "collect"),
        *("methods", "run_times", "report", "bundle", "manifest"),
        *("scans", "predictions", "predict"),
    }


def test_what_is_listed_exists() -> None:
    assert [module for module in DECIDE_NOTHING if file_of(module) is None] == []
