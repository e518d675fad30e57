"""Loss between the best model of each fold and its other ones."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from voxelsoup.report.figures.panels import (
    Drawing,
    in_panels,
    protocol_of,
    run_colours,
    run_handles,
    styled,
)
from voxelsoup.report.figures.style import FEW_RUNS
from voxelsoup.study.trials import NO_LABELS, named


def barriers(
    records: Mapping[int, Mapping[str, Any]], path: Path, names: Mapping[str, str] = NO_LABELS
) -> None:
    """Loss on the lines from the best model of each fold (its basin.json) to the others."""
    models = sorted({line["trial"] for record in records.values() for line in record["lines"]})
    colours, few = run_colours(models), len(models) <= FEW_RUNS
    with styled():
        drawing: Drawing[int] = in_panels(sorted(records))
        for fold, axes in drawing.panels.items():
            lines = records[fold]["lines"]
            if not lines:
                axes.text(0.5, 0.5, "one model only", ha="center", transform=axes.transAxes)
            for line in lines:
                (curve,) = axes.plot(
                    records[fold]["points"],
                    np.array(line["losses"], dtype=np.float64),
                    color=colours[line["trial"]],
                    linewidth=1.2,
                    alpha=0.9 if few else 0.5,
                    marker="o",
                    markersize=3,
                )
                drawing.tooltips.curve(curve, _text(fold, line, names), many=not few)
        drawing.label_axes(
            "from the best model (0) to the other (1)", "loss on selection cases (no unit)"
        )
        handles = run_handles(colours, names, "a line per other model")
        drawing.finish(handles, protocol_of(records), path)


def _text(fold: int, line: Mapping[str, Any], names: Mapping[str, str]) -> str:
    measures = [
        f"{measure} {value:.4f}"
        # Older records call the gain lift.
        for measure, value in (
            ("barrier", line.get("barrier")),
            ("gain", line.get("gain", line.get("lift"))),
        )
        if value is not None
    ]
    run = f"fold {fold}, {named(line['trial'], names)}"
    return "\n".join(filter(None, (run, ", ".join(measures))))
