"""The table of rules agrees with the rule files."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

from support.forked import from_one_that_imported_them
from voxelsoup.cluster.job_resources import RULES

REPOSITORY = Path(__file__).parents[2]
CHAPTERS = [*sorted((REPOSITORY / "rules").glob("*.smk")), REPOSITORY / "Snakefile"]
# What begins a rule, and everything that is indented below it.
RULE = re.compile(
    r"^(?:    )?(?:rule|checkpoint|use rule \w+ as) (\w+)(?: with)?:\n((?:[ ]+.*\n|\n)+)",
    re.MULTILINE,
)


def rules_of_files() -> dict[str, str]:
    """Rule -> its text."""
    return {name: text for file in CHAPTERS for name, text in RULE.findall(file.read_text())}


def rule_graph(
    folder: Path,
    sweep: dict[str, Any],
    given: str = "",
    configurations: dict[str, Any] | None = None,
) -> tuple[set[str], set[tuple[str, str]]]:
    """The rules of a study with all that a study can have, and which reads whose outputs.

    With an ingredient, a file that is ``given``, it has no final model, nor with configurations.
    """
    study = yaml.safe_load((REPOSITORY / "config.yaml").read_text())
    study |= {"sweep": sweep, "predict": {"input": "scans"}}
    study["comparison"] = {"test_sets": {"other": "scans"}, "other_tools": {"nnU-Net": "maps"}}
    study["soup"] = {"recipes": ["greedy", "ensemble"], "ensemble_of": "greedy", "finish": {}}
    if given:
        (folder / given).touch()
        study["ingredients"] = [given]
    elif configurations:
        study["configurations"] = configurations
    elif "halving" not in sweep:
        study["comparison"]["long_run"] = study["final"] = True
    (folder / "study.yaml").write_text(yaml.safe_dump(study))
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(REPOSITORY / "Snakefile")]
    command += ["all", "predict", "--configfile", "study.yaml", "--rulegraph"]
    environment = from_one_that_imported_them()
    result = subprocess.run(command, cwd=folder, capture_output=True, text=True, env=environment)
    assert result.returncode == 0, result.stderr
    numbers = dict(re.findall(r'(\d+)\[label = "(\w+)"', result.stdout))
    arrows = re.findall(r"(\d+) -> (\d+)", result.stdout)
    return set(numbers.values()), {(numbers[first], numbers[then]) for first, then in arrows}


def test_the_table_has_every_rule_that_asks_for_resources_and_no_other() -> None:
    texts = rules_of_files()
    assert {name for name, text in texts.items() if "resources:" in text} == set(RULES)
    # The others have no jobs that do anything: they gather files for other rules and for users.
    assert set(texts) - set(RULES) == {"all", "findings"}
    assert not [text for name, text in texts.items() if name not in RULES and "output:" in text]


def test_every_rule_asks_under_its_own_name() -> None:
    texts = rules_of_files()
    for name in RULES:
        assert re.findall(r'\b(threads_of|needs)\("(\w+)"\)', texts[name]) == [
            ("threads_of", name),
            ("needs", name),
        ]


def test_the_rules_that_are_never_submitted_are_the_local_rules_of_the_files() -> None:
    # `localrules` would not know them by the names that another workflow gives them.
    named = {name for name, text in rules_of_files().items() if "    localrule: True\n" in text}
    assert {name for name, rule in RULES.items() if rule.local} == named


def test_a_rule_waits_for_those_whose_outputs_it_reads(tmp_path: Path) -> None:
    grid = {"grid": {"training.seed": [0, 1]}}
    names, edges = rule_graph(tmp_path, grid)
    # What follows the last rung of a halved study is not known before it has run.
    halved = rule_graph(tmp_path, grid | {"halving": {"rungs": 2, "keep": 0.5}})
    # What was trained elsewhere has no part in a final model.
    given = rule_graph(tmp_path, grid, given="given.pt")
    # Rules of a configuration are those of the study under other names.
    several = rule_graph(tmp_path, grid, configurations={"k5": {"network": {"kernel_size": 5}}})
    own = {name for name in several[0] if not name.startswith("k5_")}
    of_own = {(first, then) for first, then in several[1] if {first, then} <= own}
    names, edges = names | halved[0] | given[0] | own, edges | halved[1] | given[1] | of_own
    # How many batches there are is not known before the scans are listed, nor which trials the
    # final model is made of before the folds have chosen them.
    known_later = {"predict_batch", "final_stem", "final_trial"}
    assert names - {"all"} == set(RULES) - known_later
    inside = {
        (first, then)
        for first, then in edges
        if then != "all"
        and RULES[first].one_per == RULES[then].one_per
        and not RULES[first].local
        and not RULES[then].local
    }
    assert inside == {(first, then) for then, rule in RULES.items() for first in rule.waits_for}
