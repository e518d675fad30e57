"""Figures of cases and of hyperparameters: their choice, and figures of very few."""

from __future__ import annotations

import math
import re
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.text import Text

from support import invented_figures as invented
from voxelsoup.report import figures
from voxelsoup.report.figures.case_slices import OUTLINES, _window
from voxelsoup.report.figures.example_cases import best_median_worst, densest_slice
from voxelsoup.report.figures.paired_differences import LOOKS

scores = st.dictionaries(
    st.tuples(st.integers(0, 4), st.sampled_from("abcdefgh")),
    st.sampled_from([0.0, 0.25, 0.5, 1.0, math.nan]),
)


def test_best_median_worst_picks_three_of_five_cases():
    found = best_median_worst(
        {(0, "a"): 0.5, (0, "b"): 0.9, (1, "c"): 0.1, (1, "d"): 0.6, (1, "e"): 0.4}
    )
    assert found == [("best", 0, "b"), ("median", 0, "a"), ("worst", 1, "c")]


@given(scores)
def test_best_median_worst_are_distinct_and_in_order(known):
    found = best_median_worst(known)
    assert found == best_median_worst(dict(reversed(known.items())))
    valid = [score for score in known.values() if not math.isnan(score)]
    assert [rank for rank, *_ in found] == {
        0: [],
        1: ["best"],
        2: ["best", "worst"],
    }.get(len(valid), ["best", "median", "worst"])
    assert len({(fold, case) for _, fold, case in found}) == len(found)
    values = [known[fold, case] for _, fold, case in found]
    assert values == sorted(values, reverse=True)
    if valid:
        assert (values[0], values[-1]) == (max(valid), min(valid))


def test_the_densest_slice_is_of_the_ground_truth_else_of_the_prediction_else_in_the_middle():
    truth, prediction = np.zeros((2, 2, 4, 4, 7), dtype=bool)
    assert densest_slice(truth, prediction) == 3
    prediction[1, 0, 0, 5] = True
    assert densest_slice(truth, prediction) == 5
    truth[0, :2, 0, 1] = True
    truth[0, 0, 0, 2] = truth[1, :2, 0, 2] = True
    assert densest_slice(truth, prediction) == 2


def test_slices_name_case_channel_and_scores(tmp_path):
    figures.case_slices(invented.slices(3), tmp_path / "slices.svg", "held-out", "Greedy Soup")
    words = invented.words(tmp_path / "slices.svg")
    for rank in ("best", "median", "worst"):
        assert f"{rank}: case-{rank}, fold 1" in words
    assert words.count("Dice: best model 0.700, soup 0.750") == 9
    assert {"Greedy Soup", "ground truth", "best model", "soup", "5 mm", "R", "L"} <= set(words)
    titles = invented.titles(tmp_path / "slices.svg")
    assert "case-worst: soup, ET, Dice 0.7500" in titles
    # An area and a line for each of three outlines in nine panels.
    assert len(titles) == 2 * 3 * 9


def test_a_region_that_is_not_annotated_is_said_to_be_so(tmp_path):
    shown, *others = invented.slices(3)
    scores = {region: dice for region, dice in shown.dice.items() if region != "ET"}
    slices = [replace(shown, dice=scores), *others]
    figures.case_slices(slices, tmp_path / "slices.svg", "held-out", "Greedy Soup")
    words = invented.words(tmp_path / "slices.svg")
    assert words.count("not annotated") == 1
    assert words.count("Dice: best model 0.700, soup 0.750") == 8


def test_outlines_are_vectors_on_an_embedded_image(tmp_path):
    figures.case_slices(invented.slices(1), tmp_path / "slices.svg", "held-out")
    tree = ElementTree.parse(tmp_path / "slices.svg")
    images = [element for element in tree.iter() if element.tag.endswith("}image")]
    assert len(images) == 1
    assert images[0].get("{http://www.w3.org/1999/xlink}href").startswith("data:image/png")
    drawing = (tmp_path / "slices.svg").read_text()
    assert all(to_hex(outline.colour).lower() in drawing for outline in OUTLINES)


@pytest.mark.parametrize("fill", [0.0, 1.0, math.nan])
def test_an_image_and_masks_without_content_are_drawn(tmp_path, fill):
    empty = np.zeros((6, 5), dtype=bool)
    case = figures.CaseSlice(
        rank="best",
        case="one",
        fold=0,
        spacing=(1.0, 3.0),
        image=np.full((6, 5), fill),
        regions={"WT": (empty, ~empty, empty)},
        dice={"WT": (math.nan, 0.0)},
    )
    figures.case_slices([case], tmp_path / "slices.svg", "held-out")
    assert "Dice: best model undefined, soup 0.000" in invented.words(tmp_path / "slices.svg")
    figures.case_slices([], tmp_path / "none.svg", "held-out")
    assert invented.words(tmp_path / "none.svg") == ["There is no case to show."]


def test_the_window_holds_all_outlines_and_stays_within_the_image():
    case = invented.case_slice("best", 2)
    far = np.zeros((40, 30), dtype=bool)
    far[0, 29] = far[39, 0] = True
    wide = replace(case, regions={"WT": (far, far, far)})
    assert _window(wide) == (0.0, 40.0, 0.0, 60.0)
    left, right, bottom, top = _window(case)
    assert 0 <= left <= 13 and 25 <= right <= 40
    assert 0 <= bottom <= 20 and 40 <= top <= 60
    assert right - left < 40


def test_gains_and_losses_differ_in_colour_and_shape(tmp_path):
    markers, colours, labels = (set(column) for column in zip(*LOOKS.values(), strict=True))
    assert len(markers) == len(colours) == len(labels) == len(LOOKS)
    assert len({outline.colour for outline in OUTLINES}) == len(OUTLINES)
    assert len({outline.style for outline in OUTLINES}) == len(OUTLINES)


def test_cases_without_a_score_are_counted(tmp_path):
    table = invented.differences(1, 5)[0]
    table.loc[[1, 3], "soup"] = math.nan
    figures.paired_differences({0: table}, tmp_path / "pairs.svg", "held-out", {0: None})
    words = invented.words(tmp_path / "pairs.svg")
    assert "2 cases without a score" in words
    assert len([word for word in words if word.startswith("case-")]) == 3
    assert not any("mean" in word for word in words)


def test_figures_state_a_missing_soup_or_case(tmp_path):
    figures.paired_differences({}, tmp_path / "none.svg", "held-out", {})
    assert invented.words(tmp_path / "none.svg") == ["There is no soup to compare."]
    empty = pd.DataFrame({"case": ["a"], "best": [math.nan], "soup": [0.5]})
    unknown = {0: (math.nan, math.nan, math.nan)}
    figures.paired_differences({0: empty}, tmp_path / "empty.svg", "held-out", unknown)
    assert "no case with both scores" in invented.words(tmp_path / "empty.svg")


def test_the_mean_and_its_interval_are_drawn_in_the_unit_of_the_differences(tmp_path):
    # The mean lies at the difference of the only case, the band from 0 to twice of that.
    table = pd.DataFrame({"case": ["a"], "best": [0.5], "soup": [0.51]})
    figures.paired_differences(
        {0: table}, tmp_path / "pairs.svg", "held-out", {0: (0.01, 0.0, 0.02)}
    )
    drawing = (tmp_path / "pairs.svg").read_text()
    (line,) = re.findall(
        r'<path d="M \S+ (\S+)\s+L \S+ \S+\s+"[^>]*stroke-dasharray: 4.44', drawing
    )
    tree = ElementTree.parse(tmp_path / "pairs.svg")
    (dot,) = [use for use in tree.iter() if use.get("class") == "mark" and use.get("y")]
    assert float(dot.get("y")) == pytest.approx(float(line), abs=0.01)
    assert "95 % interval of the mean" in invented.words(tmp_path / "pairs.svg")


def test_effects_figure_without_sweep_or_score_is_drawn(tmp_path):
    effects = invented.effects(1, 1)
    none = figures.HyperparameterEffects(effects.trials.iloc[:0], effects.means.iloc[:0])
    figures.hyperparameter_effects(none, tmp_path / "none.svg", "held-out")
    assert invented.words(tmp_path / "none.svg") == ["Nothing is swept."]
    unknown = figures.HyperparameterEffects(
        effects.trials.assign(score=math.nan), effects.means.assign(mean=math.nan)
    )
    figures.hyperparameter_effects(unknown, tmp_path / "unknown.svg", "held-out")
    assert {"optimizer.lr", "dice+ce"} <= set(invented.words(tmp_path / "unknown.svg"))


def test_long_values_are_wrapped_or_turned(tmp_path):
    effects = invented.effects(1, 3)
    means = effects.means.assign(
        value=[f"a rather long value {n}" for n in range(len(effects.means))]
    )
    figures.hyperparameter_effects(
        figures.HyperparameterEffects(effects.trials, means), tmp_path / "long.svg", "held-out"
    )
    words = invented.words(tmp_path / "long.svg")
    assert {"a rather long value 0", "a rather long", "value 2"} <= set(words)


@pytest.mark.parametrize("name", invented.NAMES)
def test_letters_are_legible_in_print_and_figures_fit_a_page(tmp_path, name, monkeypatch):
    drawn: list[Figure] = []
    save = Figure.savefig
    monkeypatch.setattr(
        Figure, "savefig", lambda self, *a, **k: (drawn.append(self), save(self, *a, **k))
    )
    invented.drawings(5, 12)[name](tmp_path / "figure.svg")
    texts = [text for text in drawn[0].findobj(Text) if text.get_text() and text.get_visible()]
    assert min(text.get_fontsize() for text in texts) >= 7
    assert drawn[0].get_figwidth() <= 3 * 3.7 + 0.01


@pytest.mark.parametrize("name", ["build_up", "distances"])
def test_long_names_do_not_shrink_the_panels(tmp_path, name, monkeypatch):
    drawn: list[Figure] = []
    save = Figure.savefig
    monkeypatch.setattr(
        Figure, "savefig", lambda self, *a, **k: (drawn.append(self), save(self, *a, **k))
    )
    trials = [f"{number:08x}" for number in range(12)]
    names = {t: f"schedule cosine-warmup, loss dice-bce, seed {t[-1]}" for t in trials}
    path = tmp_path / "figure.svg"
    if name == "build_up":
        figures.build_up(invented.records(2, 12), path, names)
    else:
        figures.weight_distances(invented.basins(2, 12), path, names)
    figure = drawn[-1]
    # What was measured last is in the dots of the PNG file.
    figure.draw_without_rendering()
    for panel in figure.axes[:2]:
        size = panel.get_window_extent().transformed(figure.dpi_scale_trans.inverted())
        assert size.height > 2 and size.width > 1.5
        axis = panel.xaxis if name == "build_up" else panel.yaxis
        boxes = [label.get_window_extent() for label in axis.get_ticklabels()]
        assert len(boxes) == 12
        assert not any(one.overlaps(next_one) for one, next_one in pairwise(boxes))


def test_a_legend_lies_outside_the_panels_and_within_the_figure(tmp_path, monkeypatch):
    drawn: list[Figure] = []
    save = Figure.savefig
    monkeypatch.setattr(
        Figure, "savefig", lambda self, *a, **k: (drawn.append(self), save(self, *a, **k))
    )
    for name in ("curves", "points", "differences", "effects"):
        drawn.clear()
        invented.drawings(2, 5)[name](tmp_path / "figure.svg")
        figure = drawn[-1]
        box = figure.legends[0].get_window_extent()
        assert box.x0 >= 0 and box.x1 <= figure.bbox.x1
        assert all(axes.get_tightbbox().y0 >= box.y1 for axes in figure.axes)
