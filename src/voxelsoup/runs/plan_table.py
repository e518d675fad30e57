"""What a start will do and why, as a table before Snakemake's own list."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

# Rule -> what its jobs do, in the order of the pipeline; the rest makes tables and pages.
STEPS = {
    "phantom": "scans to generate",
    "index": "scans to check",
    "folds": "folds to draw",
    "preprocess": "scans to preprocess",
    "stem": "stems to train",
    "rung": "rungs to train and score",
    "halve": "rungs to compare",
    "trial": "trials to train",
    "evaluate": "trials to score",
    "evaluate_stem": "stems to score",
    "candidates": "folds to gather",
    "best": "best single models to choose",
    "soup": "soups to make",
    "ensemble": "ensembles to score",
    "finish_targets": "ensembles to predict training cases with",
    "finish": "finishes to train",
    "finished": "finished models to choose",
    "long_run": "long runs to train",
    "final_plan": "trials of the final model to choose",
    "final_stem": "stem of the final model to train",
    "final_trial": "trials of the final model to train",
    "final_soup": "final model to average",
    "final_targets": "ensemble to predict all cases with",
    "final_finish": "final model to finish",
    "final": "final model to write down",
    "basin": "folds to measure barriers in",
    "postprocessing": "post-processings to choose",
    "evaluate_soups": "folds to score soups of",
    "score_configurations": "folds to score configurations of",
    "choose_configuration": "configurations to choose from",
    "test_configurations": "folds to test configurations on",
    "test_set": "test sets to score",
    "other_tool": "other tools to score",
    "predict_batch": "batches of scans to predict",
}
OTHERS = "tables, figures and pages"
FOLLOWS = "follows from the above"


@dataclass(frozen=True)
class Planned:
    """One job that a start will run: its rule, and why."""

    rule: str
    why: str


def plan_table(jobs: Iterable[Planned]) -> str:
    """A line per step and reason: what, how many, why; empty where nothing is to be done."""
    counts = Counter((STEPS.get(job.rule, OTHERS), job.why) for job in jobs)
    if not counts:
        return ""
    order = [*STEPS.values(), OTHERS]
    rows = sorted(counts.items(), key=lambda row: (order.index(row[0][0]), row[0][1] == FOLLOWS))
    lines = [("to do", "jobs", "why")]
    lines += [(what, str(count), why) for (what, why), count in rows]
    width, digits = max(len(what) for what, _, _ in lines), max(len(n) for _, n, _ in lines)
    return "\n".join(f"{what:<{width}}  {count:>{digits}}  {why}" for what, count, why in lines)
