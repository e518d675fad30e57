"""A folder of volumes that nothing describes: which of them are cases, and of which channels."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from voxelsoup.common.errors import InputError
from voxelsoup.common.text import listed
from voxelsoup.data.case import Case, MissingChannels, Source
from voxelsoup.data.index.checks import MISSING
from voxelsoup.data.layouts.channel_names import (
    WORD,
    ChannelMatch,
    is_mask_name,
    known_ending,
    match_channels,
    match_endings,
    names_in_order,
    plain,
    says_nothing,
)
from voxelsoup.data.layouts.json_files import channels_of_one_file, read_description
from voxelsoup.data.layouts.nnunet import CHANNEL_FILE, cases_by_number
from voxelsoup.data.volumes.volume import without_suffix

MARKS = "-_"
NAMED = 3

# Case -> channel -> its files, of which there should be one.
Groups = dict[str, dict[str, list[Path]]]


@dataclass(frozen=True)
class PlainFolder:
    """Finds cases among volumes by their names alone.

    Attributes:
        channels: the model's channels, in its order.
        stated: channel -> how the names of its files end, or their number, as the user says it.
        report: called with what was assumed or left out, in words.
    """

    channels: Sequence[str]
    stated: Mapping[str, int | str]
    report: Callable[[str], None]

    def read(self, volumes: Sequence[Path]) -> list[Case]:
        """The cases of the volumes of one folder.

        Names that end in channels come first (CASE-t1n), then numbers (CASE_0000), where there
        are several channels; otherwise each file is a case. Label maps beside scans are left out
        and reported.

        Raises InputError if names differ from those of the channels, or a model of one channel
        cannot know which of several files of a case is meant.
        """
        by_name = self._by_ending(volumes)
        if by_name:
            return self._of_groups(by_name, volumes)
        scans = self._without_masks(volumes)
        self._refuse_other_names(scans)
        by_number = self._by_number(scans)
        if by_number:
            return self._of_groups(by_number, scans)
        names = self._names_of_one_channel(scans) if len(self.channels) == 1 else {}
        return [self.of_one_volume(path, names.get(path), assumed=True) for path in scans]

    def of_one_volume(self, path: Path, name: str | None = None, assumed: bool = False) -> Case:
        """A case in one file; several channels are the components of a 4D volume."""
        stem, names = without_suffix(path.name), _names_beside(path.parent)
        if name is None and len(self.channels) == 1:
            # As nnU-Net calls the only channel; other numbers belong to the name.
            name = stem.removesuffix("_0000") or stem
        number = CHANNEL_FILE.fullmatch(stem)
        if names and number and int(number["channel"]) < len(names) > 1 == len(self.channels):
            name, names = number["case"], [names[int(number["channel"])]]
        count = len(names) if names else len(self.channels)
        match = self._match(names, count, path.parent)
        # A file with more components is refused: which of them are meant is not known.
        return Case(
            name or stem,
            channels_of_one_file(path, match.places, count),
            None,
            components=count,
            notes=match.remarks,
            # Of several components, one may well be a mask that the model asks for.
            assumed=assumed and count == 1,
        )

    def _match(self, names: Sequence[str] | None, count: int, folder: Path) -> ChannelMatch:
        """The places of the channels among names, or among as many numbers."""
        there = names or [str(number) for number in range(count)]
        match = match_channels(self.channels, there, folder, self.stated)
        if len(match.places) < len(self.channels):
            raise InputError(
                folder,
                f"has {len(there)} channel(s): {listed(there)}",
                f"the model's {len(self.channels)}: {listed(self.channels)}",
                "predict scans of the channels that the model was trained on",
            )
        return match

    # --- by the names of channels ---------------------------------------------------------------

    def _by_ending(self, volumes: Sequence[Path]) -> Groups:
        """Groups by what names end in: as it is stated, or a channel or a synonym of it."""
        if any(isinstance(said, int) for said in self.stated.values()):
            return {}
        called = {str(self.stated.get(name, name)): name for name in self.channels}
        stems = {path: without_suffix(path.name) for path in volumes}
        if self.stated:
            found = {stem: _stated_ending(stem, called) for stem in stems.values()}
            ends = {stem: end for stem, end in found.items() if end is not None}
        else:
            ends = match_endings(stems.values(), list(called))
        groups: Groups = {}
        for path, stem in stems.items():
            if stem in ends:
                before, channel = ends[stem]
                case = before or path.absolute().parent.name
                groups.setdefault(case, {}).setdefault(called[channel], []).append(path)
        return _exact_names_first(groups)

    def _of_groups(self, groups: Groups, volumes: Sequence[Path]) -> list[Case]:
        folder = volumes[0].parent
        used = {path for files in groups.values() for paths in files.values() for path in paths}
        others = [path for path in volumes if path not in used]
        lost = _of_no_case(others, list(groups))
        extra = [path for path in others if path not in lost]
        notes = self._take_the_one_left(groups, extra)
        used = {path for files in groups.values() for paths in files.values() for path in paths}
        self._report_unused([path for path in extra if path not in used])
        cases = [self._of_group(case, files, folder, notes) for case, files in groups.items()]
        return cases + [self._of_no_channel(path) for path in lost]

    def _take_the_one_left(self, groups: Groups, extra: Sequence[Path]) -> tuple[str, ...]:
        """Give the one channel that no case has the one other file that all cases have."""
        there = {channel for files in groups.values() for channel in files}
        missing = [name for name in self.channels if name not in there]
        if len(missing) != 1 or len(self.channels) == 1:
            return ()
        rests: defaultdict[str, dict[str, Path]] = defaultdict(dict)
        for path in extra:
            stem = without_suffix(path.name)
            case = max((c for c in groups if stem.startswith(c)), key=len, default=stem)
            rests[stem.removeprefix(case).strip(MARKS)][case] = path
        shared = [r for r, files in rests.items() if len(files) == len(groups)]
        shared = [rest for rest in shared if rest and not is_mask_name(rest)]
        if len(shared) != 1 or extra == []:
            return ()
        names = [*(name for name in self.channels if name in there), *shared]
        try:
            match = match_channels(self.channels, names, extra[0].parent)
        except InputError:
            # Another known channel: the missing one stays missing.
            return ()
        for case, path in rests[shared[0]].items():
            groups[case][missing[0]] = [path]
        return match.remarks

    def _of_no_channel(self, path: Path) -> Case:
        """A volume that no channel is found in the name of: leaving it out would lose a case."""
        problem = InputError(
            path,
            "belongs to no case beside it, and its name does not end in a channel",
            f"CASE-CHANNEL, with one of the model's channels: {', '.join(self.channels)}",
            "rename the file, or move it away if it is not a scan",
        )
        sources = {name: Source(path) for name in self.channels}
        return Case(without_suffix(path.name), sources, None, problem=problem)

    def _of_group(
        self, case: str, files: Mapping[str, Sequence[Path]], folder: Path, notes: tuple[str, ...]
    ) -> Case:
        """A case of the files of its channels; what is missing or too much is its problem."""
        problem = None
        missing = [name for name in self.channels if name not in files]
        several = next((paths for paths in files.values() if len(paths) > 1), None)
        if missing or set(files) - set(self.channels) or several:
            found = (
                f"has both {several[0].name} and {several[1].name}"
                if several
                else f"has files of the channels {listed(sorted(files))}"
            )
            # Where nothing else is wrong, it may be accepted.
            kind = InputError if several or set(files) - set(self.channels) else MissingChannels
            key = MISSING if kind is MissingChannels and len(missing) < len(self.channels) else ""
            problem = kind(
                folder / case,
                found,
                f"one file for each of the model's channels: {', '.join(self.channels)}",
                f"add or rename the files (--channels says what INPUT calls the channels){key}",
            )
        none = Path(folder, f"{case}-missing")
        sources = {n: Source(files[n][0] if n in files else none) for n in self.channels}
        return Case(case, sources, None, problem=problem, notes=notes)

    def _refuse_other_names(self, scans: Sequence[Path]) -> None:
        """Refuse files that say by their names that they are other channels of the same cases."""
        groups: defaultdict[str, dict[str, Path]] = defaultdict(dict)
        for path in scans:
            *before, last = WORD.split(without_suffix(path.name))
            groups["_".join(before)][last] = path
        several = len(self.channels) > 1
        ends = [set(files) for files in groups.values()]
        if several and len(ends) > 1 and len(ends[0]) > 1 and all(e == ends[0] for e in ends):
            if not any(map(says_nothing, ends[0])):
                match_channels(self.channels, sorted(ends[0]), scans[0].parent)
            return
        for files in groups.values():
            known = {known_ending(end): path for end, path in files.items()}
            known.pop(None, None)
            if not several and len(known) > 1:
                first, second, *_ = known.values()
                raise self._which_is_meant(first, second, sorted(files))

    def _which_is_meant(self, first: Path, second: Path, ends: Sequence[str]) -> InputError:
        return InputError(
            first.parent,
            f"holds {first.name} and {second.name}, which seem to be two channels of one case",
            f"scans of the model's one channel, {self.channels[0]}",
            f"say which is meant: --channels {ends[0]}, or {', '.join(ends[1:])}; if each file "
            "is a case of its own, list them in a cases.csv (docs/data.md)",
        )

    # --- by the numbers of channels -------------------------------------------------------------

    def _by_number(self, scans: Sequence[Path]) -> Groups:
        """Groups by the numbers that names end in, where there are several channels."""
        numbered: dict[str, dict[int, list[Path]]] = {}
        for path in scans:
            if name := CHANNEL_FILE.fullmatch(without_suffix(path.name)):
                files = numbered.setdefault(name["case"], {})
                files.setdefault(int(name["channel"]), []).append(path)
        names = _names_beside(scans[0].parent)
        stated = any(isinstance(said, int) for said in self.stated.values())
        several = len(self.channels) > 1 or stated or (names is not None and len(names) > 1)
        if not several or not any(0 in files for files in numbered.values()):
            return {}
        # Numbers that are stated may be any of those that are there.
        last = max(max(files) for files in numbered.values()) if stated else -1
        count = max(len(names or self.channels), last + 1)
        match = self._match(names, count, scans[0].parent)
        for remark in match.remarks:
            self.report(remark)
        by_place = {place: name for name, place in match.places.items()}
        # What the data set describes and the model does not take; any other number is a problem.
        unused = {n for n in range(count) if n not in by_place} if names or stated else set()
        return {
            case: {by_place.get(n, str(n)): paths for n, paths in files.items() if n not in unused}
            for case, files in numbered.items()
        }

    def _names_of_one_channel(self, scans: Sequence[Path]) -> dict[Path, str]:
        """File -> the name of its case: `amos_0001` is one, `amos_0000` nnU-Net's name of `amos`.

        Raises InputError where a name comes with 0000 and with another number.
        """
        stems = {without_suffix(path.name): path for path in scans}
        for files in cases_by_number(stems)[0].values():
            if 0 in files and len(files) > 1:
                numbers = sorted(files)
                ends = [f"{number}" for number in numbers]
                raise self._which_is_meant(files[numbers[0]], files[numbers[1]], ends)
        all_first = all(stem.endswith("_0000") for stem in stems)
        return {
            path: stem.removesuffix("_0000") if all_first else stem
            for path in scans
            for stem in [without_suffix(path.name)]
        }

    # --- what is no scan ------------------------------------------------------------------------

    def _without_masks(self, volumes: Sequence[Path]) -> list[Path]:
        """Volumes without the label maps of others beside them, which are reported.

        A name with a word such as `gt` or `mask` belongs to the scan that has all its other words:
        `p_1_gt` to `p_1`, `segmentation-0` to `volume-0`.
        """
        words = {path: WORD.split(plain_case(path)) for path in volumes}
        masks = [path for path in volumes if is_mask_name(without_suffix(path.name))]
        scans = [set(words[path]) for path in volumes if path not in masks]
        left_out = [
            path
            for path in masks
            if (rest := {w for w in words[path] if not is_mask_name(w)})
            and any(rest <= scan for scan in scans)
        ]
        if left_out:
            self.report(
                f"left out as label maps of the scans beside them, by their names: "
                f"{_some(left_out)}"
            )
        return [path for path in volumes if path not in left_out]

    def _report_unused(self, paths: Sequence[Path]) -> None:
        if paths:
            self.report(f"not used, files beside the channels of their cases: {_some(paths)}")


def plain_case(path: Path) -> str:
    """A file's name in lower case, without its suffix."""
    return without_suffix(path.name).lower()


def _some(paths: Sequence[Path]) -> str:
    names = ", ".join(path.name for path in paths[:NAMED])
    return names + (f" and {len(paths) - NAMED} more" if len(paths) > NAMED else "")


def _stated_ending(stem: str, called: Iterable[str]) -> tuple[str, str] | None:
    """What stands before the longest stated ending of a name, and the ending."""
    fits = [n for n in called if stem == n or stem.endswith(tuple(m + n for m in MARKS))]
    end = max(fits, key=len, default=None)
    return None if end is None else (stem.removesuffix(end).rstrip(MARKS), end)


def _exact_names_first(groups: Groups) -> Groups:
    """Where a case has files of a channel's own name and of synonyms, those of its own name."""
    for files in groups.values():
        for channel, paths in files.items():
            same = [p for p in paths if plain(without_suffix(p.name)).endswith(plain(channel))]
            if len(paths) > 1 and len(same) == 1:
                files[channel] = same
    return groups


def _of_no_case(paths: Sequence[Path], cases: Sequence[str]) -> list[Path]:
    """Volumes that do not belong to a known case, as its label map and masks do."""
    if any(case == path.absolute().parent.name for path in paths for case in cases):
        # The folder of one case: what else it holds belongs to it, whatever it is called.
        return []
    known = tuple(case + mark for case in cases for mark in MARKS)
    stems = {path: without_suffix(path.name) for path in paths}
    return [
        path for path, stem in stems.items() if stem not in cases and not stem.startswith(known)
    ]


def _names_beside(folder: Path) -> list[str] | None:
    """Names of the channels in the dataset.json above a folder of its images."""
    where = folder.absolute().parent / "dataset.json"
    if not folder.absolute().name.startswith("images") or not where.is_file():
        return None
    description = read_description(where)
    described = description.get("channel_names", description.get("modality"))
    return names_in_order(described, where) if isinstance(described, dict | list) else None
