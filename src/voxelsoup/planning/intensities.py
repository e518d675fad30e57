"""The normalisation that is proposed for a data set: by names and values of its channels."""

from __future__ import annotations

import re
from statistics import median

from voxelsoup.data.layouts.detect import Guess
from voxelsoup.planning.fingerprint import Fingerprint

# One scheme for all channels, or one for each.
Scheme = str | dict[str, str]

# nnU-Net normalises over the foreground where cropping takes more than a quarter away.
MANY_ZEROS = 0.25
# Ways to write CT as a channel's name, as words of it.
CT = re.compile(
    r"(?<![a-z])(ct|cta|ctp|ncct|nect|cect|cbct|hrct|ldct|computed ?tomography)(?![a-z])", re.I
)
# Lowest and highest intensity of a scan in Hounsfield units, which shows air (-1000; scanners fill
# with down to -3024) and bone. Windowed scans begin at 0; other modalities have nothing below.
AIR, BONE, FILLED = -500, 200, -4096


def propose_normalisation(guess: Guess, fingerprint: Fingerprint) -> tuple[Scheme, str]:
    """How channels are to be normalised, and why.

    By nnU-Net's rules: CT by its own scheme, and other channels over the foreground where much of
    a scan is 0. nnU-Net goes by the channel's name alone; here the values have to be Hounsfield
    units, which are enough where the name says nothing.
    """
    zeros = median(contents.zeros for contents in fingerprint.contents)
    many = zeros > MANY_ZEROS
    other = "zscore-nonzero" if many else "zscore"
    why = f"{100 * zeros:.0f} % of the voxels of a usual case are 0: " + (
        "a background that is kept at 0." if many else "no background to exclude."
    )
    kinds = {name: _kind(name, guess, fingerprint) for name in guess.dataset.channels}
    schemes = {name: "ct" if kind == "ct" else other for name, kind in kinds.items()}
    windowed = [name for name, kind in kinds.items() if kind == "windowed"]
    if windowed:
        why = (
            f"channel {windowed[0]} is CT by its name, but its values are no Hounsfield units "
            f"(none is negative): not clipped as CT. {why}"
        )
    if not uses_ct(schemes):
        return other, why
    first = next(name for name, scheme in schemes.items() if scheme == "ct")
    low, high = _range(first, fingerprint)
    reason = (
        f"channel {first} holds Hounsfield units ({low:,.0f} to {high:,.0f}): clipped at the 0.5 "
        "and 99.5 percentiles of the labelled voxels of each fold's training cases, then scaled by "
        "their mean and standard deviation, as in nnU-Net (`ct`)."
    )
    if set(schemes.values()) == {"ct"}:
        return "ct", reason
    return schemes, f"{reason} Other channels: {why}"


def uses_ct(normalisation: Scheme) -> bool:
    """Whether some channel is normalised as CT."""
    schemes = [normalisation] if isinstance(normalisation, str) else normalisation.values()
    return "ct" in schemes


def _kind(name: str, guess: Guess, fingerprint: Fingerprint) -> str:
    """`ct` (in Hounsfield units), `windowed` (CT that is not) or `other`."""
    low, high = _range(name, fingerprint)
    if FILLED <= low <= AIR and high >= BONE:
        return "ct"
    named = any(CT.search(text.replace("_", " ")) for text in (name, guess.called.get(name, "")))
    if not named:
        return "other"
    # A window of Hounsfield units, such as -160 to 240, is still in their scale.
    return "ct" if low < 0 else "windowed"


def _range(name: str, fingerprint: Fingerprint) -> tuple[float, float]:
    """Medians over the cases of a channel's lowest and highest intensity."""
    seen = [contents.ranges[name] for contents in fingerprint.contents if name in contents.ranges]
    if not seen:
        return 0.0, 0.0
    return median(low for low, _ in seen), median(high for _, high in seen)
