"""Lists that name a file for each channel: do the files' own names say the same?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from voxelsoup.common.errors import InputError
from voxelsoup.data.case import Case, Source
from voxelsoup.data.layouts.channel_names import match_endings
from voxelsoup.data.volumes.volume import without_suffix
from voxelsoup.study.sections.data import Dataset


def channels_by_endings(channels: Mapping[str, Source]) -> dict[str, str]:
    """Channel -> the one of them that its file's name ends in; none where two end in the same."""
    stems = {name: without_suffix(source.file.name) for name, source in channels.items()}
    ends = match_endings(stems.values(), list(channels))
    found = {name: ends[stem][1] for name, stem in stems.items() if stem in ends}
    return found if len(set(found.values())) == len(found) else {}


def with_checked_endings(case: Case, dataset: Dataset, where: str) -> Case:
    """The case, with a problem where the names of its files end in other channels than listed.

    Not where the study itself says which is which (``dataset.channel_names``).
    """
    ends = {} if dataset.channel_names is not None else channels_by_endings(case.channels)
    wrong = next((name for name, other in ends.items() if name != other), None)
    if wrong is None or case.problem is not None:
        return case
    problem = InputError(
        case.channels[wrong].file,
        f"ends in {ends[wrong]}, but {where} has it in the place of {wrong}",
        f"the file of {wrong}",
        "correct the list; or, if it is right, say so: `dataset.channel_names` in the study, "
        "--channels to predict",
    )
    return replace(case, problem=problem)
