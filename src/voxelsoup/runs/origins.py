"""What results were made from, written down beside them: how a start knows what is current.

Each job leaves one small file in ``results/.state/origins``: its settings, what it read, which code
decided its numbers, and the sizes of what it wrote. Nothing in it depends on dates, on the place of
the results or on `.snakemake`, so that results may be copied and moved.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from voxelsoup.common.code_version import as_of_now, changed_modules, module_hashes
from voxelsoup.common.files import json_sha256, write_text
from voxelsoup.common.plug_ins import code_of
from voxelsoup.study.sections.removed_recipes import without_unused_settings

ORIGINS = Path(".state", "origins")
# Inputs and settings lie below these wherever the study lies.
RESULTS = "<results>"
# The parameter that stands for sizes and dates of scans.
SCANS = "listing"
SHOWN_AT_ONCE = 3
SHOWN_LENGTH = 40
# What decides the numbers that a rule writes (see ``code_version``); pages and pictures, which are
# made again in seconds, have no such numbers.
KINDS: dict[str, tuple[str, ...]] = {
    "folds": ("folds",),
    "preprocess": ("preprocessing",),
    "stem": ("training",),
    "trial": ("training",),
    "rung": ("training", "scores"),
    "evaluate": ("scores",),
    "evaluate_stem": ("scores",),
    "convert": ("conversion",),
    "ingredient": ("scores",),
    "soup": ("scores", "soups"),
    "ensemble": ("scores", "post-processing", "soups"),
    "finish_targets": ("scores", "soups", "finish"),
    "finish": ("training", "finish"),
    "finished": ("scores", "soups", "finish"),
    "long_run": ("training", "scores"),
    "final_cases": ("soups", "final"),
    "final_plan": ("soups", "final"),
    "final_stem": ("training",),
    "final_trial": ("training",),
    "final_soup": ("scores", "soups", "final"),
    "final_targets": ("scores", "soups", "finish", "final"),
    "final_finish": ("training", "finish"),
    "final": ("tables",),
    "basin": ("scores", "soups"),
    "best": ("soups",),
    "postprocessing": ("scores", "post-processing"),
    "evaluate_soups": ("scores", "post-processing"),
    "test_set": ("preprocessing", "predictions", "scores"),
    "other_tool": ("preprocessing", "scores"),
    "predict_batch": ("preprocessing", "predictions"),
    "score_configurations": ("scores", "configurations"),
    "choose_configuration": ("configurations",),
    "test_configurations": ("scores", "post-processing", "configurations"),
    "compare_configurations": ("tables", "pairs"),
    "compare": ("tables",),
    "basins": ("tables",),
    "test_sets": ("tables",),
    "other_tools": ("tables", "pairs", "other tools"),
}


@dataclass(frozen=True)
class Origin:
    """What one job's results were made from.

    Attributes:
        rule: that made them.
        settings: name of a parameter of the rule -> its value.
        inputs: file -> ``id`` of the origin that it has, or a hash of its content.
        code: module that decides numbers -> its hash; None for results of versions that did not
            write it down.
        outputs: file -> its size in bytes.
        kept: further versions of the code by which the results were declared current.
        finished: whether the job ended; outputs of one that did not may be of both.
    """

    rule: str
    settings: dict[str, Any]
    inputs: dict[str, str]
    code: dict[str, str] | None
    outputs: dict[str, int] = field(default_factory=dict)
    kept: list[dict[str, str]] = field(default_factory=list)
    finished: bool = True

    @cached_property
    def id(self) -> str:
        """By which the jobs that read its outputs know it: the same for a repetition."""
        made_from = {"rule": self.rule, "settings": self.settings, "inputs": self.inputs}
        return json_sha256({**made_from, "code": self.code})[:16]

    def is_by(self, code: dict[str, str]) -> bool:
        """Whether its numbers are those of this version of the code, or were declared to be."""
        known = [*([] if self.code is None else [self.code]), *self.kept]
        return code in map(as_of_now, known)

    def keeping(self, code: dict[str, str]) -> Origin:
        """The same, declared current for a version of the code."""
        return replace(self, kept=[*self.kept, code])


def path_of_origin(results: str | Path, output: str) -> str:
    """Where the origin of a job lies, by the name of its first output below the results."""
    return f"{results}/{ORIGINS}/{output}.json"


def read_origin(path: str) -> Origin | None:
    """An origin; None if there is none that can be read."""
    try:
        with open(path, encoding="utf-8") as stream:  # noqa: PTH123
            return Origin(**json.load(stream))
    except (OSError, ValueError, TypeError):
        return None


def was_made_by(
    results: str | Path,
    output: str,
    code: dict[str, str],
    settings: Mapping[str, Any],
    inputs: Iterable[str],
) -> bool:
    """Whether an output is what a job with this code and these settings would make of its inputs.

    Args:
        output: the first of the job that made it; as ``inputs``, below the results.
        settings: those that are asked about; the job may have others.
    """
    origin = read_origin(path_of_origin(results, output))
    if origin is None or not origin.finished or not origin.is_by(code):
        return False
    if any(origin.settings.get(name) != value for name, value in settings.items()):
        return False
    now = {name: read_origin(path_of_origin(results, name)) for name in inputs}
    return all(
        source is not None and origin.inputs.get(f"{RESULTS}/{name}") == source.id
        for name, source in now.items()
    )


def write_origin(path: str, origin: Origin) -> None:
    """Write an origin down.

    Raises:
        InputError: if it cannot be written.
    """
    content = asdict(origin)
    # Read of thousands of jobs at a time.
    content = {key: value for key, value in content.items() if value not in ([], True)}
    write_text(Path(path), json.dumps(content, separators=(",", ":")))


def sizes(outputs: Sequence[str], results: str) -> dict[str, int]:
    """File below the results -> its size in bytes; folders have none."""
    found = {}
    for path in outputs:
        if not os.path.isdir(path):  # noqa: PTH112
            found[below(str(path), results)] = os.stat(path).st_size  # noqa: PTH116
    return found


def below(path: str, results: str) -> str:
    """A path as it is called wherever the results lie."""
    return placed(path, {results: RESULTS})


def placed(value: Any, places: Mapping[str, str]) -> Any:
    """Settings as JSON has them, with names in place of folders, which may be moved.

    ``places`` maps folders, such as that of the results, to their names; of several that a path
    lies in the innermost counts.
    """
    if isinstance(value, Mapping):
        return {str(key): placed(inner, places) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [placed(inner, places) for inner in value]
    if isinstance(value, str | os.PathLike):
        text = str(value)
        around = [each for each in places if text == each or text.startswith(f"{each}/")]
        folder = max(around, key=len, default=None)
        return text if folder is None else places[folder] + text[len(folder) :]
    return value


def differences(before: Any, now: Any, path: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Dotted key, value before and value now of all settings in which two mappings differ."""
    if isinstance(before, dict) and isinstance(now, dict):
        for key in dict.fromkeys([*now, *before]):
            inner = f"{path}.{key}" if path else str(key)
            yield from differences(before.get(key), now.get(key), inner)
    elif before != now:
        yield path, before, now


def in_words(changes: Sequence[tuple[str, Any, Any]]) -> str:
    """Changed settings in a line, such as "`stem.epochs` 1 -> 2"."""
    shown = [f"`{key}` {_short(old)} -> {_short(new)}" for key, old, new in changes[:SHOWN_AT_ONCE]]
    more = len(changes) - len(shown)
    return ", ".join(shown) + (f" and {more} more" if more else "")


def _short(value: Any) -> str:
    text = "unset" if value is None else str(value)
    return text if len(text) <= SHOWN_LENGTH else f"{text[: SHOWN_LENGTH - 3]}..."


def why_outdated(before: Origin, now: Origin, results: str) -> str | None:
    """Why results are no longer those of the study, in words; None if they are.

    The code is compared elsewhere (``Origin.is_by``): the user is asked about it.
    """
    if not before.finished:
        return "interrupted before they were complete"
    changes = list(differences(_settings_of_today(before.settings), now.settings))
    if SCANS in (key for key, _, _ in changes):
        return "the scans changed"
    if changes:
        return in_words(changes)
    others = [name for name, made in now.inputs.items() if before.inputs.get(name) != made]
    others += [name for name in before.inputs if name not in now.inputs]
    if others:
        more = f" and {len(others) - 1} more" if len(others) > 1 else ""
        return f"{others[0].removeprefix(f'{RESULTS}/')}{more} changed"
    for name, size in before.outputs.items():
        path = name.replace(RESULTS, results, 1)
        try:
            found = os.stat(path).st_size  # noqa: PTH116
        except OSError:
            continue
        if found != size:
            return f"{name.removeprefix(f'{RESULTS}/')} has {found} bytes instead of {size}"
    return None


def _settings_of_today(settings: dict[str, Any]) -> dict[str, Any]:
    """Settings as results have them, without those that had no effect and were removed."""
    study = settings.get("study")
    if not isinstance(study, dict) or "soup" not in study:
        return settings
    return settings | {"study": study | {"soup": without_unused_settings(study["soup"])}}


def changed_code(before: dict[str, str] | None, now: dict[str, str]) -> str:
    """What of the code differs, in words."""
    if before is None:
        return "made by a version of voxelsoup that did not write down its code"
    return f"code changed: {', '.join(changed_modules(before, now))}"


# Kinds of results whose numbers a network decides.
OF_NETWORKS = {"training", "conversion", "scores", "predictions"}


def code_of_plug_ins(
    rule: str, settings: Mapping[str, Any], network: str, recipe: str | None
) -> dict[str, str]:
    """Module -> hash of the plug-ins that decide what a job writes.

    Args:
        settings: of the job, as its origin has them.
        network: of the study.
        recipe: of the soup that the job makes, if it makes one.

    Raises:
        UnknownPlugIn: if one is not to be found.
    """
    found = code_of("networks", network) if OF_NETWORKS & set(KINDS.get(rule, ())) else {}
    for section, key, kind in (
        ("training", "loss", "losses"),
        ("evaluation", "loss", "losses"),
        ("dataset", "layout", "layouts"),
        ("predict", "layout", "layouts"),
    ):
        values = settings.get(section)
        if isinstance(values, Mapping) and key in values:
            found |= code_of(kind, values[key])
    if settings.get("layout"):
        # Of a test set, or of scans to predict.
        found |= code_of("layouts", settings["layout"])
    metrics = settings.get("metrics")
    if isinstance(metrics, Mapping):
        found |= code_of("metrics", *metrics.get("names", ()))
    return found | (code_of("recipes", recipe) if rule == "soup" and recipe else {})


@cache
def code_of_rule(rule: str) -> dict[str, str]:
    """Module -> hash of the code that decides the numbers of a rule."""
    return module_hashes(KINDS.get(rule, ()))
