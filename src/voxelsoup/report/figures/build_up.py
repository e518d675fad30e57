"""How the greedy soups grew."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from voxelsoup.report.figures.panels import Drawing, in_panels, mark, protocol_of, styled
from voxelsoup.report.figures.style import BLUE, FEW_MARKS, GREY, VERMILLION
from voxelsoup.report.figures.tooltips import Tooltips
from voxelsoup.study.trials import NO_LABELS, named


def build_up(
    records: Mapping[int, Mapping[str, Any]], path: Path, names: Mapping[str, str] = NO_LABELS
) -> None:
    """How the greedy soup of each fold (its recipe.json) grew: the score with each ingredient."""
    with styled():
        drawing: Drawing[int] = in_panels(sorted(records))
        for fold, axes in drawing.panels.items():
            _grow(axes, fold, records[fold]["decisions"], drawing.tooltips, names)
        if not records:
            drawing.say("This study makes no greedy soup.")
        drawing.label_axes("ingredients, best single model first", "mean selection Dice (0 to 1)")
        models = {fold: [str(d["trial"]) for d in records[fold]["decisions"]] for fold in records}
        drawing.name_ranks({fold: [names.get(m, m) for m in of] for fold, of in models.items()})
        handles = [
            Line2D([], [], color=BLUE, lw=1.4, drawstyle="steps-post", label="the soup"),
            mark("o", BLUE, BLUE, "soup with it: kept"),
            mark("o", VERMILLION, "white", "soup with it: left out"),
            mark("_", GREY, GREY, "the model alone"),
        ]
        drawing.finish(handles if records else [], protocol_of(records), path)


def _grow(
    axes: Axes,
    fold: int,
    decisions: Sequence[Mapping[str, Any]],
    tooltips: Tooltips,
    names: Mapping[str, str],
) -> None:
    ranks = np.arange(1, len(decisions) + 1)
    kept = np.array([bool(decision["accepted"]) for decision in decisions], dtype=bool)
    scores = {
        key: np.array([decision[f"{key}_score"] for decision in decisions], dtype=np.float64)
        for key in ("single", "candidate", "best")
    }
    many = len(decisions) > FEW_MARKS
    size = 3 if many else 5.5
    looks: list[tuple[str, Any, dict[str, Any]]] = [
        ("single", np.isfinite(scores["single"]), {"marker": "_", "color": GREY, "ms": size + 2}),
        (
            "candidate",
            ~kept & np.isfinite(scores["candidate"]),
            {"marker": "o", "mec": VERMILLION, "mfc": "white", "ms": size},
        ),
        (
            "candidate",
            kept & np.isfinite(scores["candidate"]),
            {"marker": "o", "color": BLUE, "ms": size},
        ),
    ]
    axes.step(ranks, scores["best"], where="post", color=BLUE, linewidth=1.4)
    texts = [_text(fold, rank, made, names) for rank, made in enumerate(decisions, start=1)]
    for key, shown, look in looks:
        (marks,) = axes.plot(ranks[shown], scores[key][shown], ls="", **look)
        tooltips.marks(marks, [texts[rank - 1] for rank in ranks[shown]])


def _text(fold: int, rank: int, decision: Mapping[str, Any], names: Mapping[str, str]) -> str:
    outcome = "kept" if decision["accepted"] else "left out"
    with_it = decision["candidate_score"]
    score = "stopped early, as it could no longer win" if with_it is None else f"{with_it:.4f}"
    return (
        f"fold {fold}, ingredient {rank}: {named(str(decision['trial']), names)}\n"
        f"soup with it {score}: {outcome}\n"
        f"the model alone {decision['single_score']:.4f}"
    )
