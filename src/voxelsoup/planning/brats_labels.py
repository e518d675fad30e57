"""What label values mean in the data sets of the BraTS family, which number them differently.

Sources:

- 2012 to 2016: 1 necrosis, 2 oedema, 3 non-enhancing, 4 enhancing tumour (review in Sensors 2025,
  25(6):1838, https://www.mdpi.com/1424-8220/25/6/1838, section 4.1).
- 2017 to 2021: "ET - label 4, ED - label 2, NCR/NET - label 1"
  (https://www.med.upenn.edu/cbica/brats2020/data.html; arXiv:2107.02314).
- 2023 and later, adult glioma: 3 enhancing instead of 4 (MONAI's
  ``ConvertToMultiChannelBasedOnBratsGliomaClasses2023``). After treatment (2024, arXiv:2405.18368):
  1 NETC, 2 SNFH, 3 ET and 4 the resection cavity, which belongs to no tumour region.
- Meningioma (arXiv:2305.07642), metastases (arXiv:2306.00838; 4 = resection cavity in later years,
  https://huggingface.co/NicoloPecco/nnUNet_BraTS_Metastases), sub-Saharan Africa
  (arXiv:2305.19369) and GoAT 2024, which pools them: the values of adult glioma of 2023.
- Meningioma before radiotherapy (arXiv:2405.18383): 1 = gross tumour volume.
- Paediatric 2023 (arXiv:2305.17033): 1 non-enhancing with cysts, 2 oedema, 3 enhancing. From 2024
  (arXiv:2404.15009; https://github.com/MIC-DKFZ/nnUNet/issues/3042): 1 enhancing, 2 non-enhancing,
  3 cystic, 4 oedema; the tumour core is 1 + 2 + 3. Both name cases BraTS-PED-00001-000.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field

Regions = dict[str, list[int]]

SINCE_2023 = {1: "non-enhancing core and necrosis", 2: "oedema", 3: "enhancing tumour"}
CAVITY = {4: "resection cavity"}
TC_WT_ET = {"TC": [1, 3], "WT": [1, 2, 3], "ET": [3]}


@dataclass(frozen=True)
class Numbering:
    """One meaning of label values.

    Attributes:
        key: its name for ``voxelsoup init --labels``.
        title: the data sets that have it.
        cases: regular expression that the names of its cases begin with, upper and lower case.
        meaning: label value -> what it is.
        regions: those that the challenge scores.
        further: regions of values that only some cases have.
        order: region -> the value it writes into a label map, where it has several to itself.
    """

    key: str
    title: str
    cases: str
    meaning: dict[int, str]
    regions: Regions
    further: Regions = field(default_factory=dict)
    order: dict[str, int] = field(default_factory=dict)

    def names(self, case: str) -> bool:
        """Whether a case is called as those of these data sets are."""
        return re.match(self.cases, case, re.IGNORECASE) is not None

    def regions_of(self, values: Collection[int]) -> Regions:
        """The regions for label values that occur."""
        seen = {r: labels for r, labels in self.further.items() if set(labels) & set(values)}
        return {name: list(labels) for name, labels in (self.regions | seen).items()}

    def explain(self, values: Collection[int]) -> str:
        """The meaning of the values of its regions and of those that occur, in words."""
        wanted = {value for labels in self.regions.values() for value in labels} | set(values)
        return ", ".join(f"{v} = {text}" for v, text in self.meaning.items() if v in wanted)


GLIOMA_2023 = Numbering(
    "gli",
    "BraTS adult glioma of 2023 and later, before or after treatment",
    r"BraTS-GLI-",
    SINCE_2023 | CAVITY,
    TC_WT_ET,
    {"RC": [4]},
)
UP_TO_2021 = Numbering(
    "gli-2021",
    "BraTS of 2017 to 2021",
    r"BraTS(17|18|19|20|2017|2018|2019|2020|2021)_",
    {1: "necrosis and non-enhancing tumour", 2: "oedema", 4: "enhancing tumour"},
    {"TC": [1, 4], "WT": [1, 2, 4], "ET": [4]},
)
PED_2023 = Numbering(
    "ped-2023",
    "BraTS paediatric of 2023",
    r"BraTS-PEDs?-",
    SINCE_2023 | {1: "non-enhancing tumour, cysts and necrosis"},
    TC_WT_ET,
)
PED_2024 = Numbering(
    "ped-2024",
    "BraTS paediatric of 2024 and later",
    r"BraTS-PEDs?-",
    {1: "enhancing tumour", 2: "non-enhancing tumour", 3: "cysts", 4: "oedema"},
    {"TC": [1, 2, 3], "WT": [1, 2, 3, 4], "ET": [1]},
    order={"WT": 4, "TC": 2, "ET": 1},
)
NUMBERINGS = (
    GLIOMA_2023,
    Numbering(
        "met",
        "BraTS metastases of 2023 and later",
        r"BraTS-METS?-",
        SINCE_2023 | CAVITY,
        TC_WT_ET,
        {"RC": [4]},
    ),
    Numbering("men", "BraTS meningioma of 2023", r"BraTS-MEN-(?!RT)", SINCE_2023, TC_WT_ET),
    Numbering("ssa", "BraTS sub-Saharan Africa", r"BraTS-(SSA|AFRICA)-", SINCE_2023, TC_WT_ET),
    Numbering("goat", "BraTS GoAT", r"BraTS-GoAT-", SINCE_2023, TC_WT_ET),
    Numbering("phantom", "voxelsoup's phantom", r"Phantom-\d+-\d+$", SINCE_2023, TC_WT_ET),
    Numbering(
        "men-rt",
        "BraTS meningioma before radiotherapy",
        r"BraTS-MEN-RT-",
        {1: "gross tumour volume"},
        {"GTV": [1]},
    ),
    PED_2024,
    PED_2023,
    UP_TO_2021,
    Numbering(
        "gli-2016",
        "BraTS of 2012 to 2016",
        r"brats_(2012|2013|tcia)_|BRATS_(HG|LG)\d|VSD\.Brain",
        {1: "necrosis", 2: "oedema", 3: "non-enhancing tumour", 4: "enhancing tumour"},
        {"TC": [1, 3, 4], "WT": [1, 2, 3, 4], "ET": [4]},
        order={"WT": 2, "TC": 3, "ET": 4},
    ),
)


def fitting(names: Sequence[str], values: Collection[int]) -> tuple[list[Numbering], bool]:
    """The numberings that names of cases and label values (above 0) allow, one per set of regions.

    Returns:
        One numbering where the meaning is known; several, or none, where it is not. And whether
        the names of all cases are those of the numberings.
    """
    by_name = [n for n in NUMBERINGS if any(map(n.names, names))]
    named = bool(names) and all(any(n.names(name) for n in by_name) for name in names)
    if not named:
        # Names that nobody knows, or of known and unknown data sets in one folder.
        return _different(n for n in NUMBERINGS if set(values) <= set(n.meaning)), False
    alike = [n for n in by_name if all(map(n.names, names))]
    if not alike:
        # Several data sets in one folder: values say nothing of which numbering each has.
        return _different(by_name), True
    fits = [n for n in alike if set(values) <= set(n.meaning)] or alike
    return _different([*fits, *_renumbered(fits, values)]), True


def _different(numberings: Iterable[Numbering]) -> list[Numbering]:
    """The first of those with equal regions; those of most values first among equals."""
    first: dict[str, Numbering] = {}
    for numbering in numberings:
        kept = first.setdefault(str(numbering.regions), numbering)
        if len(kept.meaning) < len(numbering.meaning):
            first[str(numbering.regions)] = numbering
    return list(first.values())


def _renumbered(fits: Sequence[Numbering], values: Collection[int]) -> list[Numbering]:
    """The numbering by 3 or 4 that values speak for where the names speak for the other one.

    Some pipelines write the enhancing tumour's 4 as 3, and the reverse.
    """
    enhancing = {label for n in fits for label in n.regions.get("ET", [])}
    if not enhancing or enhancing & set(values):
        return []
    others = (GLIOMA_2023, UP_TO_2021)
    return [o for o in others if o.regions["ET"][0] in values and set(values) <= set(o.meaning)]
