"""What of a study is set beside others: its answer, or one of its configurations.

A study of configurations stands there by the model, or the ensemble of models, that its selection
cases chose: what its report leads with.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from voxelsoup.common.errors import InputError
from voxelsoup.common.files import read_json
from voxelsoup.common.text import did_you_mean, listed
from voxelsoup.comparison.names import BEST_MODEL, ENSEMBLE, soup_title
from voxelsoup.soups.configuration_choice import Names, title_of
from voxelsoup.study.configurations import (
    FIRST,
    FOLDER,
    SEPARATOR,
    folder_of_configuration,
    handed_over,
)
from voxelsoup.study.study import Study

CHOSEN = f"{FOLDER}/chosen.json"


@dataclass(frozen=True)
class ComparedModel:
    """A model of every fold, by where its scores lie.

    Attributes:
        title: what tables call it.
        results: the folder that has the folds; ``folder`` is the model's below each of them.
        configuration: which it is of; empty in a study without any.
    """

    title: str
    results: Path
    folder: str
    configuration: str = ""

    @property
    def place(self) -> tuple[Path, str]:
        """What it is the same as, however the folder was named."""
        return self.results.resolve(), self.folder

    def file(self, fold: int, name: str) -> Path:
        """One of its files."""
        return self.results / f"fold{fold}" / self.folder / name


@dataclass(frozen=True)
class StudyEntry:
    """A study, or one of its configurations, as it is set beside others.

    Attributes:
        results: of the study.
        configurations: name -> each configuration as a study; the study itself is the first.
        names: whose model it is: of several, their ensemble; none in a study without any.
        chosen: whether this is what the selection cases chose.
        best: of an ensemble, the best configuration alone.
    """

    results: Path
    configurations: Mapping[str, Study]
    names: Names = ()
    chosen: bool = False
    best: str = ""

    @property
    def is_ensemble(self) -> bool:
        """Whether it is an ensemble of several configurations."""
        return len(self.names) > 1

    @property
    def configuration(self) -> str:
        """What tables call it beside the study; empty in a study without configurations."""
        return title_of(self.names)

    @property
    def study(self) -> Study:
        """What it is scored by; the first configuration says it of an ensemble."""
        return self.configurations[self.names[0] if len(self.names) == 1 else FIRST]

    @property
    def own_results(self) -> Path:
        """The results folder of the configuration; of an ensemble that of the study."""
        return self._folder(self.names[0] if len(self.names) == 1 else FIRST)

    @property
    def models(self) -> tuple[ComparedModel, ComparedModel]:
        """The model that it is about, and the best single one of the same configuration.

        Of an ensemble: the best single model of the best configuration.
        """
        if self.is_ensemble:
            # Its folds lie beside the folders of the configurations.
            place = self.results / FOLDER
            about = ComparedModel(ENSEMBLE, place, "", self.configuration)
            return about, self._best_single(self.best)
        model = handed_over(self.study) if self.names else f"soups/{self.study.primary.model}"
        title = BEST_MODEL if model == "best" else soup_title(Path(model).name)
        about = ComparedModel(title, self.own_results, model, self.configuration)
        return about, self._best_single(self.configuration)

    def _best_single(self, configuration: str) -> ComparedModel:
        return ComparedModel(
            BEST_MODEL, self._folder(configuration or FIRST), "best", configuration
        )

    def _folder(self, configuration: str) -> Path:
        return Path(folder_of_configuration(str(self.results), configuration))


def entry_of(results: Path, configurations: Mapping[str, Study], asked: str) -> StudyEntry:
    """What is asked for of a study.

    Args:
        asked: a configuration, or the ensemble that was chosen of some (``first+wide``); empty:
            what the study hands over as its answer.

    Raises:
        InputError: if the study has no such configuration, or has not chosen yet.
    """
    if asked and asked in configurations:
        return StudyEntry(results, configurations, (asked,) if len(configurations) > 1 else ())
    if len(configurations) == 1 and not asked:
        return StudyEntry(results, configurations)
    asked_for = tuple(part.strip() for part in asked.split("+"))
    if len(configurations) == 1 or (asked and not {*asked_for} <= {*configurations}):
        raise _no_such(results, configurations, asked)
    record = _choice(results, configurations)
    chosen, ensemble = tuple(record["chosen"]), tuple(record["ensemble"])
    if asked and {*asked_for} != {*ensemble}:
        raise InputError(
            f"{results}{SEPARATOR}{asked}",
            "is an ensemble without scores on the test cases",
            f"the best ensemble by the selection cases, {title_of(ensemble)}, which alone is "
            "scored on them",
            f"name {results}{SEPARATOR}{'+'.join(ensemble)}, or a configuration",
        )
    names = ensemble if asked else chosen
    best = str(record["configuration"])
    return StudyEntry(results, configurations, names, names == chosen, best)


def _no_such(results: Path, configurations: Mapping[str, Study], asked: str) -> InputError:
    known = list(configurations)
    expected = (
        f"one of {listed(known)}, or nothing for the best of them"
        if len(known) > 1
        else "no name of a configuration: the study has none"
    )
    return InputError(
        f"{results}{SEPARATOR}{asked}",
        f"the study has no configuration `{asked}`{did_you_mean(asked, known)}",
        expected,
        f"name {results}{SEPARATOR}{known[-1]}, for example"
        if len(known) > 1
        else f"name {results}",
    )


def _choice(results: Path, configurations: Mapping[str, Study]) -> dict[str, Sequence[str]]:
    """What ``chosen.json`` says, if it is about these configurations."""
    path = results / CHOSEN
    example = f"{results}{SEPARATOR}{[*configurations][-1]}"
    found = ""
    record = {}
    if not path.is_file():
        found = f"is not finished: {CHOSEN} is missing"
    else:
        record = read_json(path)
        among = [name for name in record["selection_dice"] if "+" not in name]
        if {*among} != {*configurations}:
            found = f"has chosen among the configurations {listed(among)} ({CHOSEN})"
    if found:
        raise InputError(
            results,
            found,
            f"the choice among the configurations {listed(configurations)}",
            "run the study to its end (`voxelsoup status` says what is missing), or name one of "
            f"them, as {example}",
        )
    return record
