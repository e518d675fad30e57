"""A network that is planned per axis beside one that treats every axis alike, on thick slices.

Both are trained on fold 0 of `examples/acdc.yaml`, from scratch and for the same time, side by
side on one core each:

- planned: the example's own settings, which are those of `voxelsoup init`: kernels and strides per
  axis, slices resampled apart, turned in their planes only.
- alike: what `voxelsoup init` proposed before: a MedNeXt that halves every axis four times, so
  that the patch has to be 16 slices deep; resampling and rotation in all three axes. As the
  example does for DynUNet, it has a quarter of the proposed channels.

`--minutes` is the time of each training (default 10; a quarter of an hour in all). The last line is
one JSON object:

    dice_planned, dice_alike    mean test Dice over the three structures
    gain_dice, ci_low, ci_high  planned minus alike, with the 95 % interval over the test cases
    steps_planned, steps_alike  how many steps fitted into the time
    minutes, cases, data
"""

from __future__ import annotations

import argparse
import copy
import subprocess
import sys
import tempfile
from datetime import datetime
from pathlib import Path
from typing import Any

import yaml
from printing import print_figures

REPOSITORY = Path(__file__).parents[1]
sys.path.insert(0, str(REPOSITORY / "src"))

REAL = REPOSITORY.parent / "shared" / "data" / "Task603_ACDC"
TRIAL_STEPS = 30
ALIKE = {
    "network": {
        "name": "MedNeXt",
        "size": "free",
        "kernel_size": 3,
        "arguments": {
            "init_filters": 8,
            "encoder_expansion_ratio": 2,
            "decoder_expansion_ratio": 2,
            "bottleneck_expansion_ratio": 2,
            "blocks_down": [2, 2, 2, 2],
            "blocks_bottleneck": 2,
            "blocks_up": [2, 2, 2, 2],
        },
    },
    "training": {"patch": [96, 96, 16], "rotate_about": None},
    "preprocess": {"thick_slices": None},
    "optimizer": {"lr": 0.01},
}


def planned() -> dict[str, Any]:
    """The example with one training from scratch, or phantoms where there are no real scans."""
    study: dict[str, Any] = yaml.safe_load((REPOSITORY / "examples" / "acdc.yaml").read_text())
    study |= {"results": "results", "stem": {"source": "none"}, "sweep": {}}
    study["folds"] |= {"run": [0]}
    study["dataset"]["root"] = str(REAL)
    if not REAL.is_dir():
        phantom = {"cases": 12, "shape": [96, 96, 16]}
        study["dataset"] = {"layout": "phantom", "channels": ["t1n"], "phantom": phantom}
        study["regions"] = {"TC": [1, 3], "WT": [1, 2, 3], "ET": [3]}
    return study


def alike() -> dict[str, Any]:
    """The same study with every axis treated alike."""
    study = planned()
    for section, values in ALIKE.items():
        merged = values if section == "network" else study[section] | values
        study[section] = {key: value for key, value in merged.items() if value is not None}
    return study


def train_both(folder: Path, studies: dict[str, dict[str, Any]], steps: dict[str, int]) -> None:
    """Train and score both networks for these many steps, at the same time on one core each."""
    from voxelsoup.study.loading import read
    from voxelsoup.study.trials import trials

    running = {}
    for name, study in studies.items():
        home = folder / f"{name} {steps[name]}"
        home.mkdir()
        lengths = {"epochs": 1, "steps_per_epoch": steps[name]}
        file = home / "study.yaml"
        file.write_text(yaml.safe_dump(study | {"training": study["training"] | lengths}))
        (trial,) = trials(read(file))
        command = [sys.executable, "-m", "snakemake", "--snakefile", str(REPOSITORY / "Snakefile")]
        command += ["--configfile", "study.yaml", "--cores", "1"]
        command += [f"results/fold0/trials/{trial.id}/test.csv"]
        with (home / "printed.txt").open("w") as printed:
            streams: dict[str, Any] = {"stdout": printed, "stderr": subprocess.STDOUT}
            running[home] = subprocess.Popen(command, cwd=home, **streams)
    for home, process in running.items():
        if process.wait() != 0:
            sys.exit((home / "printed.txt").read_text()[-4000:])


def seconds_per_step(home: Path, steps: int) -> float:
    """The time of a step, from the record of a training."""
    from voxelsoup.runs.record import read_record

    (states,) = home.glob("results/.state/fold0/trials/*")
    record = read_record(states)
    assert record is not None
    (attempt,) = record.attempts
    assert attempt.first_step is not None and attempt.ended is not None
    ended, first = map(datetime.fromisoformat, (attempt.ended, attempt.first_step))
    return (ended - first).total_seconds() / (steps - 1)


def measure(folder: Path, minutes: float) -> dict[str, Any]:
    """All figures."""
    from voxelsoup.comparison.statistics import paired_difference
    from voxelsoup.evaluation.case_scores import by_case, read_rows

    studies = {"planned": planned(), "alike": alike()}
    short = dict.fromkeys(studies, TRIAL_STEPS)
    train_both(folder, copy.deepcopy(studies), short)
    steps = {
        name: round(minutes * 60 / seconds_per_step(folder / f"{name} {TRIAL_STEPS}", TRIAL_STEPS))
        for name in studies
    }
    train_both(folder, studies, steps)
    found = {}
    for name in studies:
        (file,) = (folder / f"{name} {steps[name]}").glob("results/fold0/trials/*/test.csv")
        found[name] = by_case(read_rows(file))
    difference = paired_difference([(found["planned"] - found["alike"]).to_numpy()])
    return {
        **{f"dice_{name}": round(float(found[name].mean()), 4) for name in studies},
        "gain_dice": round(difference.mean, 4),
        "ci_low": round(difference.low, 4),
        "ci_high": round(difference.high, 4),
        **{f"steps_{name}": steps[name] for name in studies},
        "minutes": minutes,
        "cases": difference.cases,
        "data": REAL.name if REAL.is_dir() else "phantom",
    }


def main() -> None:
    """Measure in a folder of its own, and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10, help="of each training")
    minutes = parser.parse_args().minutes
    with tempfile.TemporaryDirectory() as name:
        result = measure(Path(name), minutes)
    print_figures("Planned per axis, and every axis alike", result)


if __name__ == "__main__":
    main()
