"""What the jobs of a study took: the benchmark files that Snakemake writes, summed up."""

from __future__ import annotations

import logging
import re
from collections.abc import Collection
from pathlib import Path

import pandas as pd

from voxelsoup.comparison.tables import write_table

log = logging.getLogger(__name__)

MEMORY = "peak_memory_mb"
TOTAL = "all rules"
COLUMNS = ["jobs", "total_seconds", "median_seconds", "longest_seconds", MEMORY]
# Written by what comes after the sum: they are of an earlier time.
LATER = ("run_times", "report")
# Files of single runs and recipes are named after them, and lie in a folder of their kind.
FOLDERS = {
    "trials": "trial",
    "soups": "soup",
    "rungs": "rung",
    "finish": "finish",
    "ingredients": "ingredient",
    "elsewhere": "convert",
}


def rule_of(path: Path) -> str:
    """The rule of a benchmark file, by its place below the folder of all benchmarks.

    Examples:
        ``compare.tsv`` -> ``compare``, ``fold0/trials/0a1b2c3d.tsv`` -> ``trial``,
        ``fold0/trials/0a1b2c3d-evaluate.tsv`` -> ``evaluate``.
    """
    name, step = _name_and_step(path)
    if step:
        return step
    kind = next((FOLDERS[part] for part in path.parts if part in FOLDERS), name)
    return "ensemble" if kind == "soup" and name == "ensemble" else kind


def _name_and_step(path: Path) -> tuple[str, str]:
    # Numbers behind a dash belong to the name of a checkpoint.
    parts = re.fullmatch(r"(.+)-([a-z_]+)", path.stem)
    return (parts[1], parts[2]) if parts else (path.stem, "")


def read_benchmarks(
    folder: Path, folds: Collection[int], trials: Collection[str], recipes: Collection[str]
) -> pd.DataFrame:
    """What each job of the study took; jobs without a readable file are left out.

    Returns:
        ``rule``, ``job`` (place of its file), ``seconds`` and ``peak_memory_mb`` (NaN
        where the job was too short to be measured).
    """
    rows = []
    for path in sorted(folder.rglob("*.tsv")):
        place = path.relative_to(folder)
        if not _belongs(place, folds, trials, recipes):
            continue
        try:
            # A job that was repeated within one file: the last one counts.
            last = pd.read_csv(path, sep="\t").iloc[-1]
            seconds = float(last["s"])
        except (OSError, ValueError, KeyError, IndexError) as error:
            log.info("%s: left out (%s)", path, error)
            continue
        memory = pd.to_numeric(last.get("max_rss"), errors="coerce")
        job = place.with_suffix("").as_posix()
        rows.append({"rule": rule_of(place), "job": job, "seconds": seconds, MEMORY: float(memory)})
    return pd.DataFrame(rows, columns=["rule", "job", "seconds", MEMORY])


def _belongs(
    place: Path, folds: Collection[int], trials: Collection[str], recipes: Collection[str]
) -> bool:
    """Whether a file is of a job that the study still has."""
    parts = place.parts
    fold = re.fullmatch(r"fold(\d+)", parts[0])
    if fold is None:
        return place.stem not in LATER
    if int(fold[1]) not in folds:
        return False
    if len(parts) < 3 or parts[1] not in FOLDERS or parts[1] in ("finish", "ingredients"):
        return True
    # The models of a trial lie in a folder of its name.
    name = parts[2] if len(parts) > 3 else _name_and_step(place)[0]
    return name in (trials if parts[1] == "trials" else recipes)


def run_times(jobs: pd.DataFrame) -> pd.DataFrame:
    """Jobs of `read_benchmarks` by rule, the longest in all first, and a last row of all.

    Returns:
        Index ``rule``; columns ``jobs``, ``total_seconds``, ``median_seconds``,
        ``longest_seconds`` and ``peak_memory_mb``.
    """
    rows = {str(rule): _summary(part) for rule, part in jobs.groupby("rule")}
    ordered = dict(sorted(rows.items(), key=lambda row: (-row[1]["total_seconds"], row[0])))
    table = pd.DataFrame.from_dict(
        {**ordered, TOTAL: _summary(jobs)}, orient="index", columns=COLUMNS
    )
    table.index.name = "rule"
    return table.astype({"jobs": int})


def _summary(jobs: pd.DataFrame) -> dict[str, float]:
    seconds = jobs["seconds"]
    return {
        "jobs": len(jobs),
        "total_seconds": seconds.sum(),
        "median_seconds": seconds.median(),
        "longest_seconds": seconds.max(),
        MEMORY: jobs[MEMORY].max(),
    }


def write_run_times(jobs: pd.DataFrame, stem: Path) -> None:
    """Write the run times per rule as ``stem``.csv, .md and .html."""
    table = run_times(jobs)
    shown = pd.DataFrame(
        {
            "jobs": table["jobs"].map("{:,}".format),
            "total": table["total_seconds"].map(duration),
            "median": table["median_seconds"].map(duration),
            "longest": table["longest_seconds"].map(duration),
            "peak memory (MB)": table[MEMORY].map(
                lambda value: "–" if pd.isna(value) else f"{value:,.0f}"
            ),
        }
    )
    caption = (
        "Time and main memory of the jobs of each rule, as measured; the sum over jobs that ran "
        "in parallel exceeds the elapsed time. Of a training that was interrupted and resumed, "
        "only the last part is counted."
    )
    write_table(table, shown, stem, caption, optimistic=False)


def duration(seconds: float) -> str:
    """``3.4 s``, ``12 min 05 s``, ``31 h 07 min``."""
    if pd.isna(seconds):
        return "–"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60:,} h {minutes % 60:02d} min"
