"""Graphics cards: those of this machine, and how much memory models have by their names."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass

MIB = 2**20
# Data sheets count in powers of ten.
GB = 10**9
# Memory in GB by what a model's name has in it, the more exact names first; of models that are made
# with several sizes the smallest, unless the name says it (`nvidia_a100-sxm4-80gb`, and parts of
# a card such as `a100_3g.20gb`). Sources: the makers' data sheets,
# https://www.nvidia.com/en-us/data-center/{h200,h100,b200,a100,l40s,l40,l4,a40,a30,a16,a10,a2,t4}/,
# https://www.nvidia.com/en-us/data-center/tesla-{v100,p100}/ and /en-us/geforce/graphics-cards/,
# https://www.nvidia.com/en-us/products/workstations/,
# https://www.amd.com/en/products/accelerators/instinct.html
MEMORY_GB = {
    "b200": 180, "h200": 141, "h100": 80, "gh200": 96, "a100": 40, "l40s": 48, "l40": 48,
    "l4": 24, "a40": 48, "a30": 24, "a16": 16, "a10": 24, "a2": 16, "t4": 16, "v100": 16,
    "p100": 12, "rtxpro6000": 96, "rtx6000ada": 48, "rtx5000ada": 32, "rtxa6000": 48, "a6000": 48,
    "rtxa5000": 24, "a5000": 24, "rtxa4000": 16, "a4000": 16, "rtx8000": 48, "rtx6000": 24,
    "rtx5090": 32, "rtx4090": 24, "rtx3090": 24, "rtx3080": 10, "rtx2080ti": 11, "titanrtx": 24,
    "mi300x": 192, "mi250": 64, "mi210": 64, "mi100": 32,
}  # fmt: skip
SIZE = re.compile(r"(\d+)\s*gb(?![a-z0-9])")


@dataclass(frozen=True)
class Card:
    """A graphics card: what it is called, its memory in bytes if that is known, and its place."""

    model: str
    memory: int | None
    where: str = "this machine"

    def __str__(self) -> str:
        return f"{self.model} ({self.where})"


def memory_of_model(name: str) -> int | None:
    """Bytes of a graphics card by its maker's or the cluster's name for it; None: not known."""
    lower = name.lower()
    # In the name of a GH200 it is the memory of its CPU.
    if (size := SIZE.search(lower)) is not None and "gh200" not in lower:
        return int(size[1]) * GB
    letters = re.sub(r"[^a-z0-9]", "", lower)
    # The longest first: `l40` is a part of `l40s`.
    for model in sorted(MEMORY_GB, key=len, reverse=True):
        # Short ones are parts of other names, unless they are words of their own (`A10G` is one).
        alone = re.search(rf"(?<![a-z0-9]){model}(?![0-9])", lower)
        if alone or (len(model) > 3 and model in letters):
            return MEMORY_GB[model] * GB
    return None


def local_cards() -> list[Card]:
    """The graphics cards of this machine that this process may use, as NVIDIA's driver shows them.

    None where there is no such driver.
    """
    query = ["nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(query, capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return []
    lines = done.stdout.splitlines() if done.returncode == 0 else []
    cards = list(_cards(lines))
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        return cards
    chosen = [part.strip() for part in visible.split(",")]
    if all(part.isdecimal() for part in chosen):
        return [card for number, card in enumerate(cards) if str(number) in chosen]
    # By names of their own: any of them.
    return [] if chosen in ([""], ["-1"]) else cards


def _cards(lines: Iterable[str]) -> Iterable[Card]:
    for line in lines:
        model, _, memory = line.rpartition(",")
        if memory.strip().isdecimal():
            yield Card(model.strip(), int(memory) * MIB)


def smallest(cards: Iterable[Card]) -> Card | None:
    """The card with the least memory, of those whose memory is known."""
    known = [card for card in cards if card.memory is not None]
    return min(known, key=lambda card: card.memory or 0) if known else None
