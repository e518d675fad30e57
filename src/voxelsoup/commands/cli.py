"""The command `voxelsoup`: prepare, check, watch and use studies, which Snakemake runs."""

# PYTHON_ARGCOMPLETE_OK
from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import argcomplete

from voxelsoup import __version__
from voxelsoup.commands.compare import add_options as add_compare_options
from voxelsoup.commands.compare import compare_command
from voxelsoup.commands.data_set import add_layout_options, channels_of
from voxelsoup.commands.evaluate import add_options as add_evaluate_options
from voxelsoup.commands.evaluate import evaluate_command
from voxelsoup.commands.gpu_memory import card_to_plan_for, report_gpu_memory
from voxelsoup.commands.predict import add_options as add_predict_options
from voxelsoup.commands.predict import predict_command
from voxelsoup.commands.run import (
    add_demo_options,
    add_eject_options,
    add_run_options,
    demo_command,
    eject_command,
    run_command,
    split,
)
from voxelsoup.commands.soup import add_options as add_soup_options
from voxelsoup.commands.soup import soup_command
from voxelsoup.commands.status import add_options, status_command
from voxelsoup.commands.submit import HELP as SUBMIT_HELP
from voxelsoup.commands.submit import add_options as add_submit_options
from voxelsoup.commands.track import track_command
from voxelsoup.common.errors import InputError
from voxelsoup.common.files import write_text
from voxelsoup.common.monai_import import hide_extras_from_monai
from voxelsoup.planning.sides import notes_on_sides
from voxelsoup.study.configurations import FIRST
from voxelsoup.study.ingredients import note_on_given
from voxelsoup.study.loading import read, read_with_configurations
from voxelsoup.study.reference import configuration_reference, schema_text
from voxelsoup.study.study import Study, finish_runs
from voxelsoup.study.trials import trials
from voxelsoup.tracking.installed import check_installed

if TYPE_CHECKING:
    from voxelsoup.cluster.partitions import Check

COMPLETION = (
    "Completion of commands and options in bash, for this session: "
    'eval "$(register-python-argcomplete voxelsoup)"'
)
PROFILE = "profile of the cluster whose GPUs are meant; by default those of this machine"
# As shells count it: 128 and the number of the signal.
INTERRUPTED = 128 + signal.SIGINT


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; a mistake of the user's is one message and exit code 1."""
    parser = _parser()
    # A shell asks for completions with a variable; otherwise this does nothing.
    argcomplete.autocomplete(parser)
    own, passed = split(sys.argv[1:] if arguments is None else arguments)
    asked, others = parser.parse_known_args(own)
    if "for_snakemake" in asked:
        asked.for_snakemake, others = [*others, *passed], []
    # argparse takes words that stand behind an option for strangers: `status STUDY --json RUN`.
    if others and ("targets" not in asked or any(word.startswith("-") for word in others)):
        parser.error(f"unrecognized arguments: {' '.join(others)}")
    if others:
        asked.targets += others
    try:
        return int(asked.command(asked))
    except InputError as error:
        print(f"voxelsoup: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nvoxelsoup: interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        # `voxelsoup status | head`: the reader has read enough. Python would complain at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="voxelsoup", description=__doc__, epilog=COMPLETION)
    parser.add_argument("--version", action="version", version=f"voxelsoup {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    demo = commands.add_parser(
        "demo", help="run the study as shipped, on generated scans, in the working directory"
    )
    add_demo_options(demo)
    demo.set_defaults(command=demo_command)
    run = commands.add_parser(
        "run", help="run a study, or resume it: Snakemake with the workflow that is installed"
    )
    add_run_options(run)
    run.set_defaults(command=run_command)
    eject = commands.add_parser(
        "eject", help="write the workflow into a folder, for those who want to change it"
    )
    add_eject_options(eject)
    eject.set_defaults(command=eject_command)
    check = commands.add_parser(
        "check", help="check a study: its data set, network and initial weights"
    )
    check.add_argument("--profile", type=Path, help=PROFILE)
    check.set_defaults(command=_check)
    listing = commands.add_parser(
        "trials", help="list the trials of a study: ids, settings, what is new, running and done"
    )
    listing.add_argument("--json", action="store_true", help="print one JSON object instead")
    listing.set_defaults(command=_trials)
    prune = commands.add_parser("prune", help="list what no study names in a results folder")
    prune.add_argument("study", type=Path, nargs="+", help="study files of one results folder")
    prune.add_argument("--yes", action="store_true", help="remove it")
    prune.set_defaults(command=_prune)
    index = commands.add_parser(
        "index", help="show what a folder of scans or a study's data set holds, and check it"
    )
    index.add_argument("path", type=Path, help="folder of a data set, or study file")
    add_layout_options(index)
    index.add_argument("--json", action="store_true", help="print one JSON object instead")
    index.set_defaults(command=_index)
    init = commands.add_parser("init", help="propose a study for a folder of scans")
    init.add_argument("path", type=Path, help="folder of a data set")
    add_layout_options(init)
    init.add_argument(
        "--output", type=Path, default=Path("config.yaml"), help="default: %(default)s"
    )
    init.add_argument("--force", action="store_true", help="replace the file if it is there")
    init.add_argument(
        "--labels",
        metavar="MEANING",
        help="what the label values mean, where the data set does not say: gli, ped-2024, values "
        "(one region each), ...",
    )
    init.add_argument("--profile", type=Path, help=PROFILE)
    init.set_defaults(command=_init)
    status = commands.add_parser(
        "status", help="show what every run of a study is doing, while it runs and after"
    )
    add_options(status)
    status.set_defaults(command=status_command)
    submit = commands.add_parser("submit", help=SUBMIT_HELP)
    add_submit_options(submit)
    submit.set_defaults(command=_submit)
    stop = commands.add_parser(
        "stop", help="end a submitted study, and its jobs once they have saved their states"
    )
    stop.set_defaults(command=_stop)
    track = commands.add_parser(
        "track", help="bring the runs of a study to its tracker, MLflow or W&B (`tracking`)"
    )
    track.set_defaults(command=track_command)
    predict = commands.add_parser("predict", help="segment scans with one or several models")
    add_predict_options(predict)
    predict.set_defaults(command=predict_command)
    evaluate = commands.add_parser(
        "evaluate", help="score a model, or label maps that exist, on a labelled data set"
    )
    add_evaluate_options(evaluate)
    evaluate.set_defaults(command=evaluate_command)
    compare = commands.add_parser(
        "compare", help="set studies that were tested on the same cases beside each other"
    )
    add_compare_options(compare)
    compare.set_defaults(command=compare_command)
    soup = commands.add_parser(
        "soup", help="average models that exist already, by their Dice on labelled cases"
    )
    add_soup_options(soup)
    soup.set_defaults(command=soup_command)
    doctor = commands.add_parser(
        "doctor", help="check, before anything is submitted, that a study will run on a cluster"
    )
    for command in (check, listing, stop, track, doctor):
        command.add_argument("study", type=Path, help="study file, such as config.yaml")
    doctor.add_argument(
        "--profile", type=Path, default=Path("profiles/slurm"), help="default: %(default)s"
    )
    doctor.add_argument(
        "--seconds", type=float, default=60, help="how long to wait for a free node (default: 60)"
    )
    doctor.add_argument("--no-jobs", action="store_true", help="run no small jobs on the nodes")
    doctor.add_argument(
        "--probe",
        action="store_true",
        help="measure on a node of each GPU partition what the largest training takes, and ask "
        "from a node whether Slurm takes jobs of it (`voxelsoup submit`)",
    )
    doctor.set_defaults(command=_doctor)
    export = commands.add_parser(
        "export", help="write a model as ONNX or TorchScript, for runtimes without MONAI"
    )
    export.add_argument("model", type=Path, help="model file, or folder of a soup or run")
    export.add_argument("file", type=Path, help="file to write, .onnx or .ts")
    export.set_defaults(command=_export)
    verify = commands.add_parser(
        "verify", help="compare every file of a finished study or bundle with its recorded hash"
    )
    verify.add_argument("folder", type=Path, help="results folder of a study, or bundle")
    verify.add_argument("--data", type=Path, help="folder of the scans, if it has moved")
    verify.set_defaults(command=_verify)
    reference = commands.add_parser(
        "reference", help="write docs/configuration.md and schema/study.schema.json"
    )
    reference.add_argument(
        "--check", action="store_true", help="only check whether they are current (exit code 1: no)"
    )
    reference.set_defaults(command=_reference)
    return parser


def _check(asked: argparse.Namespace) -> int:
    studies = read_with_configurations(asked.study)
    study = studies[FIRST]
    check_installed(study.tracking, str(asked.study))
    for note in notes_on_sides(study):
        print(f"note: {note}")
    # Torch and MONAI take seconds to import, and a mistake in the file is reported before.
    hide_extras_from_monai()
    from voxelsoup.data.index.passed_over import notes_on_strays
    from voxelsoup.planning.constants import notes_on_constants
    from voxelsoup.planning.target_size import notes_on_targets
    from voxelsoup.soups.preflight import check_recipes_and_metrics
    from voxelsoup.training.preflight import check_start

    for each in studies.values():
        check_start(each)
        check_recipes_and_metrics(each)
    from voxelsoup.prediction.other_tools import check_other_tools

    tools = check_other_tools(study)
    strays = notes_on_strays(study.dataset, Path(study.dataset.root)) if study.dataset.root else []
    given = [note] if (note := note_on_given(study)) else []
    for note in (*notes_on_constants(study), *strays, *notes_on_targets(study), *given, *tools):
        print(f"note: {note}")
    for each in studies.values():
        report_gpu_memory(each, trials(each, str(asked.study)), asked.profile)
    for name, each in studies.items():
        of = f"configuration {name}, " if len(studies) > 1 else ""
        print(f"{asked.study}: {of}{counted_runs(each, len(trials(each, str(asked.study))))}")
    print(f"results: {study.results}; data set: {study.dataset.root or 'phantoms, made there'}")
    return 0


def _submit(asked: argparse.Namespace) -> int:
    from voxelsoup.commands.submit import refuse_a_second, submit

    study = read(asked.study)
    # Before what takes seconds.
    refuse_a_second(asked.study, study)
    _check(asked)
    return submit(asked, study)


def _stop(asked: argparse.Namespace) -> int:
    from voxelsoup.commands.stop import stop

    return stop(asked.study, read(asked.study))


def counted_runs(study: Study, trials: int) -> str:
    """The runs of a study of so many trials, as a sum."""
    folds = len(study.folds.numbers)
    parts = [f"{trials} trials x {folds} folds"]
    parts.append(f"{folds if study.stem.source == 'train' else 0} stems")
    finishes = len(finish_runs(study))
    if finishes:
        parts.append(f"{finishes} finishes x {folds} folds")
    if study.comparison.long_run:
        parts.append(f"{folds} long runs")
    runs = folds * (trials + (study.stem.source == "train") + finishes + study.comparison.long_run)
    return f"{' + '.join(parts)} = {runs} runs"


def _trials(asked: argparse.Namespace) -> int:
    from voxelsoup.commands.trials import print_trials

    study = read(asked.study)
    print_trials(study, trials(study, str(asked.study)), asked.json)
    return 0


def _index(asked: argparse.Namespace) -> int:
    from voxelsoup.commands.index import print_index

    return print_index(asked.path, asked.json, asked.layout, channels_of(asked))


def _init(asked: argparse.Namespace) -> int:
    from voxelsoup.data.layouts.detect import guess
    from voxelsoup.planning.init import print_first_study

    card = card_to_plan_for(asked.profile)
    found = guess(asked.path, asked.layout, channels_of(asked))
    print_first_study(found, asked.output, asked.force, asked.labels, card)
    return 0


def _prune(asked: argparse.Namespace) -> int:
    from voxelsoup.commands.prune import prune

    prune(asked.study, asked.yes)
    return 0


def _doctor(asked: argparse.Namespace) -> int:
    study = read(asked.study)
    # Importing Snakemake's Slurm plugin asks the cluster for its settings.
    from voxelsoup.cluster.doctor import examine
    from voxelsoup.cluster.profile import read_site

    site = read_site(asked.profile)
    failed = False
    checks = examine(
        study, site, Path(study.results), asked.seconds, not asked.no_jobs, asked.probe
    )
    for check in checks:
        failed |= check.problem is not None and check.required
        _print_check(check)
    return 1 if failed else 0


def _export(asked: argparse.Namespace) -> int:
    from voxelsoup.deploy.export import export
    from voxelsoup.prediction.model_files import open_models

    models = open_models([asked.model])
    if len(models) > 1:
        raise InputError(
            asked.model,
            f"holds {len(models)} models",
            "one model: an export holds one network",
            "name one of its files in models/, or the bundle's own .ts files",
        )
    export(models[0], asked.file)
    return 0


def _verify(asked: argparse.Namespace) -> int:
    from voxelsoup.commands.verify import print_verification

    return print_verification(asked.folder, asked.data)


def _print_check(check: Check) -> None:
    """One line per check, and under a failed one what was found and how to fix it."""
    from rich.console import Console
    from rich.text import Text

    problem = check.problem
    refused = Text("fails", "bold red") if check.required else Text("note ", "yellow")
    mark = Text("ok   ", "green") if problem is None else refused
    lines = Text.assemble(mark, " ", check.what)
    if problem is not None:
        lines.append(f"\n        {problem.where}: {problem.found}")
        lines.append(f"\n        expected: {problem.expected}\n        fix: {problem.fix}")
    Console(soft_wrap=True, highlight=False).print(lines)


def _reference(asked: argparse.Namespace) -> int:
    wanted = {
        Path("docs/configuration.md"): configuration_reference(),
        Path("schema/study.schema.json"): schema_text(),
    }
    stale = [p for p, text in wanted.items() if not p.is_file() or p.read_text() != text]
    if asked.check:
        for path in stale:
            print(f"{path} is not current: run `voxelsoup reference`", file=sys.stderr)
        return 1 if stale else 0
    for path in stale:
        write_text(path, wanted[path])
    return 0


if __name__ == "__main__":
    sys.exit(main())
