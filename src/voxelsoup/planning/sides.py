"""Which names of regions say left or right: mirroring along x would make the two one class."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable

from voxelsoup.study.study import Study

# Words that say a side wherever they stand (English, Latin, German, French, Spanish, Italian)...
LEFT_OR_RIGHT = frozenset(
    {"left", "right", "sinister", "sinistra", "sinistro", "dexter", "dextra", "dextro"}
    | {"links", "linke", "linker", "linkes", "rechts", "rechte", "rechter", "rechtes"}
    | {"gauche", "droit", "droite", "izquierdo", "izquierda", "derecho", "derecha"}
    | {"destra", "destro"}
)
# ...and short ones, which do only where a region has its counterpart: kidney_l beside kidney_r.
PAIRS = {"l": "r", "lt": "rt", "lh": "rh", "li": "re", "sin": "dex"}
OTHER_SIDE = PAIRS | {right: left for left, right in PAIRS.items()}
# Of leftKidney, Kidney-L and kidney_left: runs of capitals, capitalised and small words, numbers.
WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+")


def names_of_sides(names: Collection[str]) -> list[str]:
    """The names that say a side, in their order; none if no name does."""
    words = {name: tuple(word.lower() for word in WORD.findall(name)) for name in names}
    known = set(words.values())
    return [name for name, own in words.items() if _says_side(own, known)]


def notes_on_sides(study: Study) -> list[str]:
    """A note where a study mirrors left to right regions of one side, and does not say that it
    wants to.
    """
    training, sides = study.training, names_of_sides(study.regions)
    stated = "mirror_axes" in training.model_fields_set
    if stated or training.augmentation == "none" or not sides:
        return []
    return [
        f"`{sides[0]}` is the name of one side, and `training.augmentation: "
        f"{training.augmentation}` mirrors along x (left to right), which makes one class of left "
        "and right; `training.mirror_axes: [y, z]` leaves x out, [x, y, z] says that it is meant"
    ]


def _says_side(words: tuple[str, ...], known: Iterable[tuple[str, ...]]) -> bool:
    if LEFT_OR_RIGHT.intersection(words):
        return True
    mirrored = (
        (*words[:place], OTHER_SIDE[word], *words[place + 1 :])
        for place, word in enumerate(words)
        if word in OTHER_SIDE
    )
    return any(counterpart in known for counterpart in mirrored)
