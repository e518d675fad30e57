"""Names of tensors changed by rules that a study states, and rules that it is offered.

Rules are proposed and never applied by themselves: that names and shapes agree does not make two
layers the same.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TypeVar

import torch

from voxelsoup.common.errors import InputError
from voxelsoup.common.text import did_you_mean
from voxelsoup.models.weight_files import NAMED, Shapes, Weights

Rules = Mapping[str, str]
Value = TypeVar("Value")

NONE: Rules = MappingProxyType({})
# MedNeXt as its authors publish it (github.com/MIC-DKFZ/MedNeXt): the same layers, computed alike.
PUBLISHED_MEDNEXT: Rules = {
    r"^enc_block_(\d)\.": r"enc_stages.\1.",
    r"^down_(\d)\.": r"down_blocks.\1.",
    **{rf"^up_{3 - place}\.": f"up_blocks.{place}." for place in range(4)},
    **{rf"^dec_block_{3 - place}\.": f"dec_stages.{place}." for place in range(4)},
    r"\.grn_(beta|gamma)$": r".global_resp_\1",
    r"^dummy_tensor$": "",
}
# Its outputs for deep supervision, where the network has them.
SUPERVISED: Rules = {rf"^out_{4 - place}\.": f"out_blocks.{place}." for place in range(4)}


def plain_nnunet(stages: int) -> Rules:
    """nnU-Net v2's PlainConvUNet of so many stages as MONAI's DynUNet.

    Biases of convolutions that a normalisation follows change nothing, and DynUNet has none.
    """
    return {
        r"^decoder\.encoder\..*": "",
        r"^.*\.all_modules\..*": "",
        **{rf"\.convs\.{place}\.conv\.": f".conv{place + 1}.conv." for place in range(2)},
        **{rf"\.convs\.{place}\.norm\.": f".norm{place + 1}." for place in range(2)},
        r"^.*\.conv[12]\.conv\.bias$": "",
        r"^encoder\.stages\.0\.0\.": "input_block.",
        rf"^encoder\.stages\.{stages - 1}\.0\.": "bottleneck.",
        **{
            rf"^encoder\.stages\.{place + 1}\.0\.": f"downsamples.{place}."
            for place in range(stages - 2)
        },
        r"^decoder\.stages\.(\d+)\.": r"upsamples.\1.conv_block.",
        r"^decoder\.transpconvs\.(\d+)\.": r"upsamples.\1.transp_conv.conv.",
        rf"^decoder\.seg_layers\.{stages - 2}\.": "output_block.conv.conv.",
        r"^decoder\.seg_layers\..*": "",
    }


BY_AUTHORS = "the names are those of the published MedNeXt"
BY_NNUNET = "the names are those of nnU-Net's plain U-Net"
BY_ORDER = "by the order and the shapes of the tensors alone: compare the layers first"
BY_PREFIX = "by the end of the names"
LEAST_SHARE = 0.5


@dataclass(frozen=True)
class Proposal:
    """Rules that would make a file fit.

    Attributes:
        grounds: why they may be right, in words.
        fitting: how many of the ``expected`` tensors then have their name and shape.
    """

    rules: Rules
    grounds: str
    fitting: int
    expected: int


def renamed(weights: Weights, rules: Rules, where: Path) -> Weights:
    """Weights by the names that the rules give them.

    Raises:
        InputError: if a rule changes no name, or two tensors that differ get one name.
    """
    used = set[str]()
    found: Weights = {}
    first: dict[str, str] = {}
    for name, tensor in weights.items():
        new, applied = _applied(name, rules)
        used |= applied
        if new and new in found and not _same(found[new], tensor):
            raise InputError(
                where,
                f"has {first[new]} and {name}, which `rename` both calls {new}",
                "a name of its own for every tensor",
                "correct the rules; one whose replacement is empty leaves a tensor out: "
                f"'^{re.escape(name)}$': ''",
            )
        if new:
            found[new] = tensor
            first.setdefault(new, name)
    unused = [pattern for pattern in rules if pattern not in used]
    if unused:
        raise InputError(
            where,
            f"has no tensor that the rule `{unused[0]}` of `rename` changes",
            f"rules for its names: {', '.join(list(weights)[:NAMED])}, ...",
            "correct the rule, or take it out" + did_you_mean(unused[0], weights),
        )
    return found


def _same(one: torch.Tensor, other: torch.Tensor) -> bool:
    return one.shape == other.shape and one.dtype == other.dtype and torch.equal(one, other)


def _applied(name: str, rules: Rules) -> tuple[str, set[str]]:
    """A name after all rules, one after the other, and the patterns of those that changed it."""
    used = set()
    for pattern, replacement in rules.items():
        name, count = re.subn(pattern, replacement, name)
        if count:
            used.add(pattern)
    return name, used


def propose(found: Shapes, fits: Callable[[Shapes], Shapes]) -> Proposal | None:
    """Rules by which as many tensors of a file as possible fit a network.

    Args:
        found: name -> shape of the file's tensors.
        fits: what the network's tensors would have to be for a file with such tensors.

    Returns:
        The best rules; None if none make half of the network's tensors fit.
    """
    best: Proposal | None = None
    for rules, grounds in _candidates(found, fits(found)):
        shapes = _renamed_shapes(found, rules)
        if shapes is None:
            continue
        expected = fits(shapes)
        fitting = sum(shapes.get(name) == shape for name, shape in expected.items())
        if fitting > (best.fitting if best else LEAST_SHARE * len(expected)):
            best = Proposal(rules, grounds, fitting, len(expected))
            if fitting == len(expected):
                break
    if best is None:
        return None
    return Proposal(
        {**_only_used(found, best.rules), **_left_out(found, best, fits)},
        best.grounds,
        best.fitting,
        best.expected,
    )


def _candidates(found: Shapes, expected: Shapes) -> Iterator[tuple[Rules, str]]:
    prefixes = [NONE, *({rf"^{re.escape(prefix)}": ""} for prefix in _prefixes(found, expected))]
    yield from ((rules, BY_PREFIX) for rules in prefixes[1:])
    supervised = any(name.startswith("out_blocks.") for name in expected)
    table = {**PUBLISHED_MEDNEXT, **(SUPERVISED if supervised else NONE)}
    yield from (({**rules, **table}, BY_AUTHORS) for rules in prefixes)
    stages = len({name.split(".")[1] for name in expected if name.startswith("upsamples.")}) + 1
    if stages > 1:
        yield from (({**rules, **plain_nnunet(stages)}, BY_NNUNET) for rules in prefixes)
    for rules in prefixes:
        shapes = _renamed_shapes(found, rules)
        aligned = _by_order(shapes or {}, expected)
        if aligned:
            yield {**rules, **aligned}, BY_ORDER


def _prefixes(found: Shapes, expected: Shapes) -> list[str]:
    """What stands in front of the network's names in a file, the most frequent first."""
    counts: dict[str, int] = {}
    ends = {name.partition(".")[0] for name in expected}
    for name in found:
        parts = name.split(".")
        for place in range(1, min(len(parts), 4)):
            prefix = ".".join(parts[:place]) + "."
            # The rest is the network's, or all of the file's names begin so.
            counts[prefix] = counts.get(prefix, 0) + (2 if parts[place] in ends else 1)
    enough = [prefix for prefix, count in counts.items() if count >= LEAST_SHARE * len(found)]
    return sorted(enough, key=lambda prefix: -counts[prefix])


def _renamed_shapes(found: Shapes, rules: Rules) -> dict[str, tuple[int, ...]] | None:
    """Shapes by new names; None where two tensors of different shapes would have one."""
    shapes: dict[str, tuple[int, ...]] = {}
    for name, shape in found.items():
        new = _applied(name, rules)[0]
        if new and shapes.setdefault(new, shape) != shape:
            return None
    return shapes


def _by_order(found: Shapes, expected: Shapes) -> dict[str, str]:
    """Rules for single layers, where both sides have the same shapes and last names in order."""
    for order in (list, lambda names: sorted(names, key=_numbered)):
        pairs = list(zip(order(found), order(expected), strict=False))
        alike = all(
            found[old] == expected[new] and old.rpartition(".")[2] == new.rpartition(".")[2]
            for old, new in pairs
        )
        if len(found) == len(expected) and alike:
            return _shortest(pairs)
    return {}


def _shortest(pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    """One rule for each layer: what is the same at the end of both names is left out."""
    rules = {}
    for old, new in pairs:
        ends, starts = old.split("."), new.split(".")
        while len(ends) > 1 and len(starts) > 1 and ends[-1] == starts[-1]:
            ends.pop()
            starts.pop()
        if ends != starts:
            rules[rf"^{re.escape('.'.join(ends))}(?=\.|$)"] = ".".join(starts)
    return rules


def _numbered(name: str) -> list[tuple[int, str]]:
    """A key that sorts 2 before 10."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in name.split(".")]


def _only_used(found: Shapes, rules: Rules) -> dict[str, str]:
    used = {pattern for name in found for pattern in _applied(name, rules)[1]}
    return {pattern: new for pattern, new in rules.items() if pattern in used}


def _left_out(
    found: Shapes, proposal: Proposal, fits: Callable[[Shapes], Shapes]
) -> dict[str, str]:
    """Rules that leave out what the network has nothing of, where all of the network is there."""
    if proposal.fitting < proposal.expected:
        return {}
    shapes = _renamed_shapes(found, proposal.rules) or {}
    expected = fits(shapes)
    unknown = [name for name in shapes if name not in expected]
    first = dict.fromkeys(name.partition(".")[0] for name in unknown)
    own = {name.partition(".")[0] for name in expected}
    return {rf"^{re.escape(part)}(\..*)?$": "" for part in first if part not in own}
