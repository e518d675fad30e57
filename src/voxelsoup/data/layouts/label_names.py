"""What a ``dataset.json`` says of label values: their names, regions, nnU-Net's orders."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

from voxelsoup.common.text import listed
from voxelsoup.data.layouts.json_files import read_description, shown
from voxelsoup.study.sections.data import Dataset

DESCRIBED = ("decathlon", "nnunet", "monai")


@dataclass(frozen=True)
class LabelNames:
    """Label values as a data set describes them.

    Attributes:
        values: label value above 0 -> its name.
        regions: region name -> label values, where the data set itself speaks of regions.
        ignored: nnU-Net's ignore label.
        order: region -> the value it writes, in the order of writing (``regions_class_order``).
        remarks: what of the description cannot be used, and why.
    """

    values: dict[int, str] = field(default_factory=dict)
    regions: dict[str, list[int]] = field(default_factory=dict)
    ignored: int | None = None
    order: dict[str, int] = field(default_factory=dict)
    remarks: tuple[str, ...] = ()

    @property
    def named(self) -> dict[int, str]:
        """Label value -> its name, or the regions that hold it; without the ignore label."""
        held = {value for values in self.regions.values() for value in values}
        regions = {v: listed(r for r, values in self.regions.items() if v in values) for v in held}
        return {v: n for v, n in sorted((regions | self.values).items()) if v != self.ignored}


def names_of_labels(dataset: Dataset, root: Path) -> LabelNames:
    """What the description of a data set says of its labels; nothing where a layout has none.

    Raises InputError if the description cannot be read.
    """
    if dataset.layout not in DESCRIBED:
        return LabelNames()
    description = read_description(Path(dataset.file) if dataset.file else root / "dataset.json")
    return parse_labels(description.get("labels"), description.get("regions_class_order"))


def parse_labels(labels: object, order: object = None) -> LabelNames:
    """Read ``labels`` and nnU-Net's ``regions_class_order`` out of a ``dataset.json``."""
    if not isinstance(labels, dict):
        return LabelNames()
    if all(_is_label(key) for key in labels):
        # Decathlon: value -> name.
        return LabelNames({int(value): str(name) for value, name in labels.items() if int(value)})
    named = {str(name): value for name, value in labels.items() if name != "background"}
    ignored = named.pop("ignore", None)
    several = {name: value if isinstance(value, list) else [value] for name, value in named.items()}
    known = {
        name: [int(value) for value in values]
        for name, values in several.items()
        if values and all(_is_label(value) and int(value) for value in values)
    }
    only = int(ignored) if _is_label(ignored) and int(ignored) else None
    if not any(isinstance(value, list) for value in named.values()):
        return LabelNames({values[0]: name for name, values in known.items()}, ignored=only)
    problem = _problem_with_order(order, named, known)
    written = {} if order is None or problem else dict(zip(known, order, strict=True))  # type: ignore[call-overload]
    return LabelNames({}, known, only, written, (problem,) if problem else ())


def _problem_with_order(
    order: object, named: dict[str, object], known: dict[str, list[int]]
) -> str | None:
    """Why an order of nnU-Net's cannot be that of the regions, in words."""
    if order is None:
        return None
    begin = f"regions_class_order {shown(order)} of dataset.json is not used"
    if not isinstance(order, list) or len(order) != len(named) or len(known) < len(named):
        return f"{begin}: it has to be a list of {len(named)} values, one per region"
    for (region, values), value in zip(known.items(), order, strict=True):
        if value not in values:
            return (
                f"{begin}: it gives {region} the value {shown(value)}, which is none of its label "
                f"values {values}"
            )
    return None


def _is_label(value: object) -> bool:
    # Neither True nor a number of a thousand digits.
    return isinstance(value, int | str) and re.fullmatch("[0-9]{1,3}", str(value)) is not None
