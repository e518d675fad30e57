"""Planning thousands of runs: this workflow beside a bare toy of the same jobs and files.

The study has 5 folds of 1,000 trials. The toy is a Snakefile with the same jobs, inputs and outputs
and nothing else: one shell command per rule, no parameters, logs, benchmarks, resources, scripts or
study to check. Both are planned from nothing (`snakemake -n -q`) and when everything is there. A
finished study is made of empty files, with the records that Snakemake keeps of finished jobs. Times
are CPU seconds, for both are one thread of pure Python and other work on the machine disturbs these
least. The last line is one JSON object:

    jobs                  jobs of the study
    dry_run_vs_toy        our time over the toy's, everything to be done
    noop_vs_toy           our time over the toy's, nothing to be done
    peak_mb               our highest memory
    dry_run_s, noop_s     our CPU seconds
    dry_run_100_s         elapsed seconds with 5 folds of 100 trials
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import yaml
from rich.console import Console
from rich.table import Table

REPOSITORY = Path(__file__).parents[1]
REPEATS = 2
FOLDS = 5

TOY = """\
TRIALS = config["trials"]
FOLDS = range(5)
wildcard_constraints:
    fold=r"[0-9]+",
rule all:
    input: "results/report.html"
rule cases:
    output: "results/cases.tsv"
    shell: "touch {output}"
rule folds:
    input: "results/cases.tsv"
    output: "results/folds.json"
    shell: "touch {output}"
rule preprocess:
    input: "results/cases.tsv"
    output: "results/preprocessed.tsv"
    shell: "touch {output}"
rule stem:
    input: "results/folds.json", "results/preprocessed.tsv"
    output: multiext("results/fold{fold}/stem/", "model.safetensors", "history.csv", "run.json")
    shell: "touch {output}"
rule trial:
    input:
        "results/folds.json", "results/preprocessed.tsv",
        "results/fold{fold}/stem/model.safetensors",
    output:
        "results/fold{fold}/trials/{trial}/model.safetensors",
        "results/fold{fold}/trials/{trial}/history.csv",
        "results/fold{fold}/trials/{trial}/run.json",
    shell: "touch {output}"
rule evaluate:
    input:
        "results/folds.json", "results/preprocessed.tsv",
        "results/fold{fold}/trials/{trial}/model.safetensors",
    output:
        "results/fold{fold}/trials/{trial}/selection.csv",
        "results/fold{fold}/trials/{trial}/test.csv",
    shell: "touch {output}"
rule evaluate_stem:
    input:
        "results/folds.json", "results/preprocessed.tsv",
        "results/fold{fold}/stem/model.safetensors",
    output: "results/fold{fold}/stem/selection.csv", "results/fold{fold}/stem/test.csv"
    shell: "touch {output}"
rule candidates:
    input:
        expand("results/fold{{fold}}/trials/{trial}/model.safetensors", trial=TRIALS),
        expand("results/fold{{fold}}/trials/{trial}/selection.csv", trial=TRIALS),
    output: "results/fold{fold}/candidates.tsv"
    shell: "touch {output}"
rule soup:
    input: "results/fold{fold}/candidates.tsv"
    output: "results/fold{fold}/soups/{recipe}"
    shell: "touch {output}"
rule report:
    input:
        expand("results/fold{fold}/soups/{recipe}", fold=FOLDS, recipe=["greedy", "uniform"]),
        expand("results/fold{fold}/stem/test.csv", fold=FOLDS),
    output: "results/report.html"
    shell: "touch {output}"
"""


@dataclass(frozen=True)
class Used:
    """What a process took: CPU seconds, elapsed seconds and the highest memory in MB."""

    cpu_s: float
    elapsed_s: float
    peak_mb: float


def run(command: list[str], folder: Path) -> Used:
    """Run a command to its good end."""
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY / "src")}
    began = time.monotonic()
    with (folder / "printed.txt").open("wb") as printed:
        process = subprocess.Popen(
            command, cwd=folder, env=environment, stdout=printed, stderr=subprocess.STDOUT
        )
        _, status, usage = os.wait4(process.pid, 0)
    elapsed = time.monotonic() - began
    if status != 0:
        sys.exit((folder / "printed.txt").read_text()[-4000:])
    return Used(usage.ru_utime + usage.ru_stime, elapsed, usage.ru_maxrss / 1024)


def snakemake(snakefile: Path, configuration: Path, *arguments: str) -> list[str]:
    """Snakemake on a workflow and its configuration."""
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(snakefile), "--nolock"]
    return [*command, "--cores", "1", "--configfile", str(configuration), *arguments]


def write_study(folder: Path, trials: int) -> Path:
    """The shipped study with so many trials in five folds."""
    study = yaml.safe_load((REPOSITORY / "config.yaml").read_text())
    study["folds"] = {"count": FOLDS}
    study["training"] |= {"checkpoints": 1}
    study["soup"] = {"recipes": ["greedy", "uniform"]}
    rates = [round(0.0001 * number, 4) for number in range(1, trials // 10 + 1)]
    study["sweep"] = {"grid": {"optimizer.lr": rates, "training.seed": list(range(10))}}
    path = folder / f"study{trials}.yaml"
    path.write_text(yaml.safe_dump(study))
    return path


def write_toy(folder: Path, trials: int) -> tuple[Path, Path]:
    """The toy and its configuration."""
    snakefile, configuration = folder / "Toyfile", folder / f"toy{trials}.yaml"
    snakefile.write_text(TOY)
    configuration.write_text(yaml.safe_dump({"trials": [f"{n:08x}" for n in range(trials)]}))
    return snakefile, configuration


def finish(arguments: list[str]) -> None:
    """Let Snakemake write empty outputs and its records of all jobs, without running any.

    Its own `--touch` waits for each job in turn, for more than a quarter of an hour.
    """
    from snakemake.cli import main as snakemake_main
    from snakemake.scheduling.job_scheduler import JobScheduler

    def schedule(self: JobScheduler) -> bool:
        persistence = self.workflow.persistence
        jobs = list(self.workflow.dag.jobs)
        for output in (output for job in jobs for output in job.output):
            path = Path(output)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.mkdir() if output.is_directory else path.touch()
        moment = time.time()
        for output in (output for job in jobs for output in job.output):
            os.utime(output, (moment, moment))

        async def record() -> None:
            for job in jobs:
                await persistence.finished(job)

        asyncio.run(record())
        return True

    JobScheduler.schedule = schedule
    snakemake_main(arguments)


def jobs_planned(folder: Path, command: list[str]) -> int:
    """The number of jobs that a dry run announces."""
    run([*command, "-n", "--quiet", "rules"], folder)
    found = re.search(r"^total\s+(\d+)", (folder / "printed.txt").read_text(), re.MULTILINE)
    assert found is not None, (folder / "printed.txt").read_text()[-4000:]
    return int(found[1])


def measure(folder: Path) -> dict[str, float]:
    """All figures."""
    ours = snakemake(REPOSITORY / "Snakefile", write_study(folder, 1000))
    toy = snakemake(*write_toy(folder, 1000))
    small = snakemake(REPOSITORY / "Snakefile", write_study(folder, 100), "-n", "-q")
    homes = {name: folder / name for name in ("ours", "toy")}
    for home in homes.values():
        home.mkdir()
    counts = jobs_planned(homes["ours"], ours), jobs_planned(homes["toy"], toy)
    assert 0.99 < counts[0] / counts[1] < 1.01, counts
    taken: dict[str, list[Used]] = {}
    for state in ("dry run", "no-op"):
        if state == "no-op":
            for name, command in (("ours", ours), ("toy", toy)):
                run([sys.executable, __file__, "finish", *command[3:], "--no-hooks"], homes[name])
        for _ in range(REPEATS):
            for name, command in (("ours", ours), ("toy", toy)):
                used = run([*command, "-n", "-q"], homes[name])
                taken.setdefault(f"{name} {state}", []).append(used)
        printed = (homes["ours"] / "printed.txt").read_text()
        assert ("Nothing to be done" in printed) == (state == "no-op"), printed[-4000:]
    elapsed = [run(small, folder).elapsed_s for _ in range(REPEATS)]
    cpu = {key: statistics.median(one.cpu_s for one in used) for key, used in taken.items()}
    return {
        "jobs": counts[0],
        "dry_run_vs_toy": round(cpu["ours dry run"] / cpu["toy dry run"], 2),
        "noop_vs_toy": round(cpu["ours no-op"] / cpu["toy no-op"], 2),
        "peak_mb": round(max(u.peak_mb for k, used in taken.items() for u in used if "ours" in k)),
        "dry_run_s": round(cpu["ours dry run"], 1),
        "noop_s": round(cpu["ours no-op"], 1),
        "dry_run_100_s": round(statistics.median(elapsed), 1),
    }


def main() -> None:
    """Measure in a folder of its own, and print."""
    if sys.argv[1:2] == ["finish"]:
        finish(sys.argv[2:])
        return
    with tempfile.TemporaryDirectory() as name:
        result = measure(Path(name))
    table = Table(title="Planning 5 folds of 1,000 trials")
    table.add_column("what")
    table.add_column("figure", justify="right")
    for key, value in result.items():
        table.add_row(key, f"{value:,}")
    Console().print(table)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
