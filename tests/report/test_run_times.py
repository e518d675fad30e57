"""Run times, from the benchmark files of a study's jobs."""

from __future__ import annotations

from pathlib import Path

import pytest

from voxelsoup.report.run_times import (
    duration,
    read_benchmarks,
    rule_of,
    run_times,
    write_run_times,
)


@pytest.mark.parametrize(
    ("file", "rule"),
    [
        ("compare.tsv", "compare"),
        ("fold0/stem.tsv", "stem"),
        ("fold0/stem-evaluate.tsv", "evaluate"),
        ("fold0/basin.tsv", "basin"),
        ("fold0/trials/0a1b2c3d.tsv", "trial"),
        ("fold0/trials/0a1b2c3d-evaluate.tsv", "evaluate"),
        ("fold0/trials/0a1b2c3d/raw-1-evaluate.tsv", "evaluate"),
        ("fold0/soups/greedy.tsv", "soup"),
        ("fold0/evaluate_soups.tsv", "evaluate_soups"),
        ("fold0/postprocessing.tsv", "postprocessing"),
        ("fold0/soups/ensemble.tsv", "ensemble"),
    ],
)
def test_the_path_of_a_benchmark_file_gives_its_rule(file: str, rule: str) -> None:
    assert rule_of(Path(file)) == rule


def write_benchmark(path: Path, seconds: float, memory: str = "100.5") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"s\th:m:s\tmax_rss\n{seconds}\t0:00:01\t{memory}\n")


def test_run_times_include_only_jobs_of_the_study(tmp_path: Path) -> None:
    write_benchmark(tmp_path / "index.tsv", 1.5, "-")
    write_benchmark(tmp_path / "fold0/trials/aaaaaaaa.tsv", 10, "300")
    write_benchmark(tmp_path / "fold0/trials/bbbbbbbb.tsv", 30, "200")
    write_benchmark(tmp_path / "fold0/trials/aaaaaaaa/raw-1-evaluate.tsv", 4)
    # Of an earlier time, of a fold, a trial and a recipe that the study has no more, and no table.
    write_benchmark(tmp_path / "report.tsv", 1000)
    write_benchmark(tmp_path / "fold1/trials/aaaaaaaa.tsv", 1000)
    write_benchmark(tmp_path / "fold0/trials/cccccccc.tsv", 1000)
    write_benchmark(tmp_path / "fold0/soups/uniform.tsv", 1000)
    (tmp_path / "folds.tsv").write_text("")

    jobs = read_benchmarks(tmp_path, [0], ["aaaaaaaa", "bbbbbbbb"], ["greedy"])
    table = run_times(jobs)
    assert list(table.index) == ["trial", "evaluate", "index", "all rules"]
    assert table.loc["trial"].to_dict() == {
        "jobs": 2,
        "total_seconds": 40,
        "median_seconds": 20,
        "longest_seconds": 30,
        "peak_memory_mb": 300,
    }
    assert table.loc["all rules", "total_seconds"] == 45.5
    write_run_times(jobs, tmp_path / "run_times")
    assert "40.0 s" in (tmp_path / "run_times.html").read_text()
    assert "–" in (tmp_path / "run_times.md").read_text()


def test_run_times_without_any_file_are_an_empty_table(tmp_path: Path) -> None:
    jobs = read_benchmarks(tmp_path / "missing", [0], [], [])
    write_run_times(jobs, tmp_path / "run_times")
    assert run_times(jobs).loc["all rules", "jobs"] == 0


def test_durations_are_written_in_readable_units() -> None:
    assert [duration(s) for s in (3.44, 59.99, 725, 7200 + 419)] == [
        "3.4 s",
        "60.0 s",
        "12 min 05 s",
        "2 h 06 min",
    ]
