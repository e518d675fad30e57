"""Which channel is which: names of a data set's volumes matched with the names that are wanted.

``match_channels`` is the one place that decides, for training and prediction, whoever says the
names: the study, ``dataset.json``, a datalist, a table, file endings, or a model.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from voxelsoup.common.errors import InputError
from voxelsoup.common.text import listed

# One channel, as data sets call it; letters and digits alone are compared, without case. Sources:
# BraTS 2023 (t1n, t1c, t2w, t2f; arXiv:2305.19369) and 2018 to 2021 (t1, t1ce, t2, flair;
# arXiv:2107.02314), Medical Segmentation Decathlon (FLAIR, T1w, t1gd, T2w; arXiv:2106.05735),
# UPENN-GBM (T1GD; doi:10.7937/TCIA.709X-DN49), UCSF-PDGM (T1c, T1gad; doi:10.7937/tcia.bdgf-8v37),
# BIDS (T1w, T2w, FLAIR, ce-gadolinium_T1w), DICOM's modalities (CT, MR, PT), HECKTOR (PET, SUV).
SYNONYMS: dict[str, tuple[str, ...]] = {
    "t1n": ("t1", "t1w", "t1native", "t1pre", "t1precontrast", "t1weighted", "t1noncontrast"),
    "t1c": (
        *("t1ce", "t1gd", "t1gad", "t1wce", "t1wc", "t1wgd", "cet1", "cet1w", "t1post"),
        *("t1wpost", "t1cpost", "t1gadolinium", "cegadoliniumt1w", "cegadt1w", "cegdt1w"),
        *("t1contrast", "t1postcontrast", "t1contrastenhanced", "t1withcontrast"),
    ),
    "t2w": ("t2", "t2weighted"),
    "t2f": ("flair", "t2flair", "flairt2", "t2wflair", "fluidattenuatedinversionrecovery"),
    "ct": ("computedtomography", "ctscan"),
    "mr": ("mri",),
    "pet": ("pt", "suv", "ptsuv", "petsuv"),
    "dwi": ("diffusion", "diffusionweighted"),
    "adc": ("adcmap", "apparentdiffusioncoefficient"),
}
# Words by which data sets call label maps and masks.
MASKS = {
    *("seg", "segm", "segmentation", "segmentations", "gt", "groundtruth", "truth", "gtv", "roi"),
    *("mask", "masks", "brainmask", "label", "labels", "labelmap", "annotation", "pred"),
}
MEANINGS = {name: one for one, others in SYNONYMS.items() for name in (one, *others)}
# Numbers, and words that say no more; those after `unknown` are nnU-Net's normalisations.
SAYS_NOTHING = re.compile(
    r"(channel|chan|ch|image|img|im|input|modality|mod|volume|vol|scan|unnamed|unknown|"
    r"nonorm|nonormalization|zscore|rescaleto01|rescale01|rgbto01)?\d*"
)
# `p_t2_flair` and `p_ce-gadolinium_T1w` end in names of several words.
MOST_WORDS = 3
WORD = re.compile(r"[-_. ]+")


@dataclass(frozen=True)
class ChannelMatch:
    """Where each wanted channel is found.

    Attributes:
        places: wanted channel -> its place among the names that were given; without those that
            are missing.
        remarks: what was assumed, in words.
    """

    places: dict[str, int]
    remarks: tuple[str, ...] = ()


def plain(name: str) -> str:
    """A name as it is compared: letters and digits, without case."""
    text = unicodedata.normalize("NFKC", name).casefold()
    return "".join(sign for sign in text if sign.isalnum())


def meaning(name: str) -> str:
    """What a name stands for: the first of its synonyms, or the name itself as it is compared."""
    return MEANINGS.get(plain(name), plain(name))


def is_known(name: str) -> bool:
    """Whether the name is in the table of synonyms."""
    return plain(name) in MEANINGS


def says_nothing(name: str) -> bool:
    """Whether a name only counts: `0001`, `channel_2`, `image`."""
    return SAYS_NOTHING.fullmatch(plain(name)) is not None


def is_mask_name(name: str) -> bool:
    """Whether a word of a name says that it is a label map or a mask: `p_1_gt`, `seg-2`."""
    return any(plain(word) in MASKS for word in WORD.split(name))


def names_in_order(described: object, where: Path) -> list[str]:
    """The names of a data set's channels: a list, number -> name, or name -> number.

    Raises InputError if it is of another form, or numbers are missing or stand twice.
    """
    if isinstance(described, list):
        return [str(name) for name in described]
    if not isinstance(described, dict):
        raise InputError(
            where,
            f"describes its channels as {described!r}",
            "an object with one entry per channel (`modality` or `channel_names`): a list of "
            "names, number -> name, or name -> number",
            "fix the file",
        )
    numbered = {_number(key): str(name) for key, name in described.items()}
    if None in numbered:
        numbered = {_number(number): str(name) for name, number in described.items()}
    numbers = [number for number in numbered if number is not None]
    # Some data sets count from 1.
    first = min(numbers, default=0)
    if len(numbers) < len(described) or sorted(numbers) != [*range(first, first + len(numbers))]:
        raise InputError(
            where,
            f"numbers its channels as {described!r}",
            "each number from 0 on once: {'0': 'T1', '1': 'FLAIR'} or {'T1': 0, 'FLAIR': 1}",
            "fix the file",
        )
    return [name for _, name in sorted((n, name) for n, name in numbered.items() if n is not None)]


def _number(value: object) -> int | None:
    if not isinstance(value, int | str) or isinstance(value, bool):
        return None
    return int(value) if re.fullmatch("[0-9]{1,4}", str(value)) else None


def match_channels(
    wanted: Sequence[str],
    there: Sequence[str],
    where: str | Path,
    stated: Mapping[str, str | int] | None = None,
) -> ChannelMatch:
    """Find each wanted channel among the names of a data set's volumes.

    What is stated comes first, then the same names, then synonyms. If one channel is left on each
    side, it is taken and reported. Where one of the sides has no names, places decide, which is
    reported too.

    Args:
        wanted: names of the study's or the model's channels.
        there: names of the data set's volumes, in its order; numbers where it names none.
        where: what has these names, for messages.
        stated: channel -> its name or place there, from ``dataset.channel_names`` or --channels.

    Returns:
        Places of the wanted channels; some are missing only where no name is left for them.

    Raises:
        InputError: if names differ, with the match that would be meant by the places; or if a
            stated name is not there.
    """
    if not stated and [name.lower() for name in clean_names(there)] == [n.lower() for n in wanted]:
        # As `voxelsoup init` writes them, also names of which two are alike.
        return ChannelMatch({name: place for place, name in enumerate(wanted)})
    places = {
        name: _stated_place(name, said, there, where) for name, said in (stated or {}).items()
    }
    for same in (plain, meaning):
        places |= _unique(same, _rest(wanted, places), there, places)
    missing = _rest(wanted, places)
    left = [place for place in range(len(there)) if place not in places.values()]
    if not missing or not left:
        unused = [there[place] for place in left if not says_nothing(there[place])]
        remarks = (f"not used of {where}: {listed(unused)}",) if unused else ()
        return _ordered(wanted, places, remarks)
    if len(missing) == len(left) and _may_be(missing, [there[place] for place in left], places):
        pairs = dict(zip(missing, left, strict=True))
        return _ordered(wanted, places | pairs, _assumed(pairs, there, where, len(wanted)))
    raise _different(wanted, there, where, places, left)


def _may_be(missing: Sequence[str], left: Sequence[str], places: Mapping[str, int]) -> bool:
    """Whether what is left on both sides may belong together without being stated."""
    if len(left) == 1:
        # Of several, a known channel is no other known one.
        return not (places and is_known(missing[0]) and is_known(left[0]))
    return not places and (all(map(says_nothing, left)) or all(map(says_nothing, missing)))


def _rest(wanted: Sequence[str], places: Mapping[str, int]) -> list[str]:
    return [name for name in wanted if name not in places]


def _unique(
    same: Callable[[str], str],
    wanted: Sequence[str],
    there: Sequence[str],
    taken: Mapping[str, int],
) -> dict[str, int]:
    """Places of the wanted names that exactly one name is the same as, and no other wanted one."""
    free = [place for place in range(len(there)) if place not in taken.values()]
    found = {name: [p for p in free if same(there[p]) == same(name)] for name in wanted}
    alike = [same(name) for name in wanted]
    return {
        name: places[0]
        for name, places in found.items()
        if len(places) == 1 and alike.count(same(name)) == 1
    }


def _ordered(
    wanted: Sequence[str], places: Mapping[str, int], remarks: tuple[str, ...]
) -> ChannelMatch:
    return ChannelMatch({name: places[name] for name in wanted if name in places}, remarks)


def _stated_place(name: str, said: str | int, there: Sequence[str], where: str | Path) -> int:
    """The place of a channel as the user says it; raises InputError if it is not there."""
    if isinstance(said, int):
        found = [said] if said < len(there) else []
    else:
        found = [n for n, other in enumerate(there) if other == said]
        found = found or [n for n, other in enumerate(there) if plain(other) == plain(said)]
    if len(found) != 1:
        raise InputError(
            where,
            f"has channels named {listed(there)}; {said} is stated for {name}",
            "one of these names, or its place, counted from 0",
            "correct --channels (`dataset.channel_names` in a study)",
        )
    return found[0]


def _assumed(
    pairs: Mapping[str, int], there: Sequence[str], where: str | Path, count: int
) -> tuple[str, ...]:
    if any(says_nothing(name) for name in (*pairs, *(there[place] for place in pairs.values()))):
        if count == 1:
            # There is nothing to confuse.
            return ()
        return (
            f"{where}: no names of channels to go by: they are taken in their order as "
            f"{listed(pairs)}",
        )
    return tuple(
        f"{where}: the channel {there[place]} is taken as {name}, the one that is left"
        for name, place in pairs.items()
    )


def _different(
    wanted: Sequence[str],
    there: Sequence[str],
    where: str | Path,
    places: Mapping[str, int],
    left: Sequence[int],
) -> InputError:
    """The refusal of other names, with the match that would be meant."""
    missing = _rest(wanted, places)
    found = f"has channels named {listed(there)}; wanted are {listed(wanted)}"
    expected = "the same names, in any order (docs/data.md lists the synonyms)"
    if len(left) < len(missing):
        fix = "take scans of the channels that the model is trained on"
        return InputError(where, found, expected, fix)
    meant = {**places, **dict(zip(missing, left, strict=False))}
    named = {name: there[meant[name]] for name in wanted}
    pairs = ", ".join(f"{name} = {other}" for name, other in named.items())
    # Names that cannot be distinguished are stated by their places.
    unclear = any(list(there).count(other) > 1 for other in named.values())
    said: dict[str, object] = {**meant} if unclear else {**named}
    return InputError(
        where,
        f"{found}. In their order this would mean {pairs}",
        expected,
        "say which is which: --channels "
        + ",".join(str(said[name]) for name in wanted)
        + " to predict, `dataset.channel_names: {"
        + ", ".join(f"{name}: {said[name]}" for name in wanted)
        + "}` in a study, if this is what is meant",
    )


def match_endings(stems: Iterable[str], wanted: Sequence[str]) -> dict[str, tuple[str, str]]:
    """File names (without suffix) that end in a wanted channel -> (what stands before it, channel).

    ``p_t2_flair`` ends in t2f, by its synonym; what stands before it is ``p``. The same name comes
    before a synonym.
    """
    found = {}
    for stem in stems:
        for same in (plain, meaning):
            wanted_as = {same(name): name for name in reversed(wanted)}
            fits = [
                (before, wanted_as[same(ending)])
                for before, ending in _endings(stem)
                if same(ending) in wanted_as
            ]
            if fits:
                found[stem] = fits[0]
                break
    return found


def known_ending(stem: str) -> str | None:
    """What a file name ends in, if that is a known channel: its meaning."""
    return next((meaning(end) for _, end in _endings(stem) if is_known(end)), None)


def _endings(stem: str) -> list[tuple[str, str]]:
    """What a name may end in, the longest first, each behind what stands before it."""
    marks = [match.span() for match in WORD.finditer(stem)][-MOST_WORDS:]
    splits = [(stem[:start], stem[end:]) for start, end in marks]
    # The whole name, of a file in the folder of its case.
    return ([("", stem)] if len(marks) < MOST_WORDS else []) + splits


def clean_names(names: Iterable[str], reserved: Collection[str] = ()) -> list[str]:
    """Names as a study takes them: letters, digits and underscores, no two alike.

    ``reserved`` are names in lower case that are taken.
    """
    cleaned: list[str] = []
    taken = set(reserved)
    for number, name in enumerate(names):
        plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
        text = re.sub(r"[^A-Za-z0-9_]+", "_", plain).strip("_") or f"unnamed_{number}"
        unique, count = text, 1
        while unique.lower() in taken:
            count += 1
            unique = f"{text}_{count}"
        taken.add(unique.lower())
        cleaned.append(unique)
    return cleaned
