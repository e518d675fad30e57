"""The command `voxelsoup compare`: studies tested on the same cases, beside each other."""

from __future__ import annotations

import argparse
import html
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from voxelsoup.common.errors import InputError
from voxelsoup.common.text import counted, listed
from voxelsoup.study.configurations import FIRST, FOLDER, SEPARATOR

if TYPE_CHECKING:
    import pandas as pd

    from voxelsoup.comparison.between_studies import Family
    from voxelsoup.comparison.common_ground import CommonGround
    from voxelsoup.comparison.scored_study import ScoredStudy
    from voxelsoup.comparison.study_entries import StudyEntry
    from voxelsoup.report.figures import DrawnPair
    from voxelsoup.study.study import Study

TABLE, PAGE, FIGURE = "comparison.csv", "comparison.html", "differences.svg"
# A folder of results is mostly called so, which says nothing about the study.
USUAL = "results"


def add_options(parser: argparse.ArgumentParser) -> None:
    """The arguments and options of the command."""
    parser.add_argument(
        "targets",
        nargs="+",
        metavar="STUDY",
        help="two or more studies: results folders, or study files; STUDY:NAME is its "
        "configuration NAME, and without it the best of its configurations is compared",
    )
    parser.add_argument(
        "--output",
        type=Path,
        default=Path("compared"),
        metavar="FOLDER",
        help="where the table, the figure and the page go; those of an earlier comparison are "
        "replaced (default: %(default)s)",
    )
    parser.add_argument(
        "--common",
        action="store_true",
        help="where cases, folds, regions, metrics or post-processing of the studies differ, "
        "compare what they have in common (default: name what differs, and compare nothing)",
    )


def compare_command(asked: argparse.Namespace) -> int:
    """Run the command.

    Raises:
        InputError: if a study cannot be read or is not finished, or the studies differ in what they
            were scored on.
    """
    from voxelsoup.comparison.between_studies import (
        caption_of,
        compare_studies,
        comparison_frame,
        notes_on_code,
    )
    from voxelsoup.comparison.common_ground import common_ground, refuse_differences
    from voxelsoup.comparison.scored_study import read_study_scores

    entries = [_opened(target) for target in asked.targets]
    _check_different(entries)
    names = names_of([entry.results for entry in entries])
    studies = [read_study_scores(name, one) for name, one in zip(names, entries, strict=True)]
    ground = common_ground(studies)
    if not asked.common:
        refuse_differences(studies, ground)
    families = compare_studies(studies, ground)
    frame = comparison_frame(families, ground, studies[0].protocol)
    notes = [*(f"Not in common: {line}." for line in ground.differ), *notes_on_code(studies)]
    caption = caption_of(studies, ground, families)
    _write(asked.output, studies, families, frame, notes, caption)
    _print(families, ground, notes)
    print(f"{asked.output / PAGE}: table and figure; {asked.output / TABLE}: every digit")
    return 0


def _opened(asked: str) -> StudyEntry:
    """What a target names: a study, or one of its configurations."""
    from voxelsoup.comparison.study_entries import entry_of
    from voxelsoup.study.loading import read_with_configurations

    target, configuration = _parted(asked)
    if target.is_file():
        configurations = read_with_configurations(target)
        return entry_of(Path(configurations[FIRST].results), configurations, configuration)
    if not target.is_dir():
        raise InputError(
            asked, "no such file or folder", "a results folder or a study file", "check the path"
        )
    return entry_of(target, _configurations_in(target), configuration)


def _parted(asked: str) -> tuple[Path, str]:
    """The study that a target names, and its configuration; that may be named by its folder too."""
    target, configuration = Path(asked), ""
    if not target.exists():
        before, _, after = asked.rpartition(SEPARATOR)
        if before and Path(before).exists():
            target, configuration = Path(before), after
    folder = target.resolve()
    if folder.parent.name != FOLDER or not _study_files(study := folder.parents[1]):
        return target, configuration
    if configuration:
        raise InputError(
            asked,
            f"names a configuration of the configuration {folder.name}",
            "a study and one of its configurations",
            f"name {target}, or {study}{SEPARATOR}{configuration}",
        )
    return study, folder.name


def _configurations_in(results: Path) -> dict[str, Study]:
    """Name -> each configuration of the study that a results folder is of."""
    from voxelsoup.study.loading import read_of_results_with_configurations

    files = _study_files(results)
    if not files:
        raise InputError(
            results,
            "is no results folder whose study is known: it has no report/study.yaml, and names no "
            "study file that is still there",
            "a results folder, or a study file",
            "name the study file, or run the study to its end",
        )
    try:
        return read_of_results_with_configurations(*files)
    except InputError as error:
        raise InputError(
            results,
            f"was made from a study that this version cannot read\n{error}",
            "a study that this version reads (docs/renamed.md says what was renamed)",
            "correct a copy of the study's file and name that, with `results` set to this folder",
        ) from error


def _study_files(results: Path) -> Sequence[Path]:
    """The files of the study that a results folder is of: the complete one, or the last started.

    None of another folder.
    """
    from voxelsoup.prediction.study_of_model import COMPLETE_STUDY
    from voxelsoup.runs.invocation import recorded_studies

    if (results / COMPLETE_STUDY).is_file():
        return [results / COMPLETE_STUDY]
    for files in reversed(recorded_studies(results)):
        if all(file.is_file() for file in files):
            return files
    return []


def _check_different(entries: Sequence[StudyEntry]) -> None:
    """Refuse what has nothing to be compared with, or is there twice."""
    named = [(entry.results.resolve(), entry.configuration) for entry in entries]
    if len({*named}) == len(named) > 1:
        return
    twice = next((one for one in named if named.count(one) > 1), None)
    others = [name for entry in entries for name in entry.configurations if entry.names]
    also = f", or another configuration of it ({listed(dict.fromkeys(others))})" if others else ""
    results, configuration = twice or ("", "")
    of = f"the configuration {configuration} of " if configuration else ""
    raise InputError(
        "voxelsoup compare",
        f"names {of}the results in {results} twice" if twice else "names one study",
        "two or more studies, each with results of its own, or configurations of one",
        f"name another study{also}",
    )


def names_of(folders: Sequence[Path]) -> list[str]:
    """What studies are called beside each other: the shortest ends of paths that tell them apart.

    ``results`` at the end says nothing, and is left out where the rest tells them apart. A folder
    may be there several times, for several configurations.
    """
    parts = [folder.resolve().parts[1:] for folder in folders]
    different = len({*parts})
    without = [path[:-1] if path[-1:] == (USUAL,) and len(path) > 1 else path for path in parts]
    for paths in (without, parts):
        for length in range(1, max(map(len, paths)) + 1):
            names = ["/".join(path[-length:]) for path in paths]
            if len({*names}) == different:
                return names
    return list(map(str, folders))


def _write(
    folder: Path,
    studies: Sequence[ScoredStudy],
    families: Sequence[Family],
    frame: pd.DataFrame,
    notes: Sequence[str],
    caption: str,
) -> None:
    """Write the table (CSV), the figure, and the page with both."""
    from voxelsoup.common.files import make_folder, writable, write_text
    from voxelsoup.comparison.between_studies import facts_of, sentences_of, shown_comparison
    from voxelsoup.comparison.names import OPTIMISTIC
    from voxelsoup.comparison.pages import page
    from voxelsoup.report.figures import study_differences

    with writable(folder):
        make_folder(folder)
    write_text(folder / TABLE, frame.to_csv(na_rep="nan", lineterminator="\n"))
    protocol = studies[0].protocol
    drawn = {family.kind: _drawn(family) for family in families}
    study_differences(drawn, folder / FIGURE, protocol)
    figure = (folder / FIGURE).read_text(encoding="utf-8")
    sentences = sentences_of(families)
    marked = f"All numbers are {OPTIMISTIC}." if protocol == "published" else ""
    title = f"{listed(study.name for study in studies)} beside each other"
    facts = facts_of(studies).items()
    content = [
        f"<h1>{html.escape(title)}</h1>",
        _list("answers", sentences),
        *(f"<p><strong>{html.escape(text)}</strong></p>" for text in [marked, *notes] if text),
        figure[figure.index("<svg") :],
        _html(shown_comparison(frame), caption),
        "<h2>What is compared</h2>",
        _list("facts", [f"{name}: {fact}" for name, fact in facts]),
    ]
    write_text(folder / PAGE, page(title, "\n".join(content), STYLE))


STYLE = """
main { overflow-x: auto; }
:is(thead th:nth-child(2), td:nth-of-type(1)) { text-align: left; }
tbody th { white-space: nowrap; }
ul { max-width: 62rem; padding-left: 1.2rem; }
ul.answers { font-size: 1.05rem; }
svg { display: block; max-width: 75rem; width: 100%; height: auto; margin: 1.5rem 0; }
""".strip()


def _list(kind: str, texts: Sequence[str]) -> str:
    return f'<ul class="{kind}">' + "".join(f"<li>{html.escape(t)}</li>" for t in texts) + "</ul>"


def _html(shown: pd.DataFrame, caption: str) -> str:
    flat = shown.rename_axis(columns=shown.index.name).rename_axis(index=None).fillna("")
    opening, _, rest = flat.to_html(border=0).partition("\n")
    return f"{opening}\n<caption>{html.escape(caption)}</caption>\n{rest}"


def _drawn(family: Family) -> list[DrawnPair]:
    import pandas as pd

    from voxelsoup.comparison.families import shown_level
    from voxelsoup.evaluation.case_scores import by_case
    from voxelsoup.report.figures import DrawnPair

    def cases_of(study: str) -> pd.Series:
        return pd.concat([by_case(block.rows[study]) for block in family.blocks])

    return [
        DrawnPair(
            f"{family.called(pair.first)} – {family.called(pair.second)}",
            cases_of(pair.first) - cases_of(pair.second),
            pair.difference.mean,
            pair.difference.low,
            pair.difference.high,
            shown_level(pair.difference.low, pair.level),
        )
        for pair in family.pairs
    ]


def _print(families: Sequence[Family], ground: CommonGround, notes: Sequence[str]) -> None:
    from rich import box
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from voxelsoup.comparison.between_studies import sentences_of, terminal_rows

    table = Table(
        title=f"Mean Dice on {counted(len(ground.cases), 'test case')}",
        caption="first – second in Dice points, with the interval of the level that Holm's method "
        "tests at",
        box=box.SIMPLE_HEAD,
        caption_justify="left",
    )
    table.padding, table.pad_edge, table.collapse_padding = (0, 1, 0, 0), False, True
    table.add_column("")
    for name in ("difference", "interval", "p (Holm)", "shown"):
        table.add_column(name, justify="right", no_wrap=True)
    for cells in terminal_rows(families):
        table.add_row(*map(escape, cells))
    console = Console(highlight=False)
    # For programs that read it, and for logs: no cell is broken.
    (console if console.is_terminal else Console(highlight=False, width=10_000)).print(table)
    for sentence in sentences_of(families):
        console.print(sentence, highlight=False, markup=False, soft_wrap=True)
    for note in notes:
        print(f"note: {note}", file=sys.stderr)
