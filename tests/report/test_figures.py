"""Figures: valid, the same bytes twice, for one to five folds and one to a hundred trials."""

from __future__ import annotations

import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from functools import cache
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from support.checks import nonempty
from support.invented_figures import (
    NAMES,
    basins,
    differences,
    drawings,
    effects,
    points,
    records,
    slices,
    titles,
    words,
)
from voxelsoup.report import figures
from voxelsoup.report.figures.style import BLUE, GREY, SOUP_COLOURS, SOUP_MARKERS

SIZES = [(1, 1), (2, 4), (5, 100)]
SVG = "{http://www.w3.org/2000/svg}"


def elements(path: Path, tag: str, kind: str) -> list[ElementTree.Element]:
    """The elements of a figure that have a class."""
    found = ElementTree.parse(path).iter(f"{SVG}{tag}")
    return [element for element in found if element.get("class") == kind]


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """All figures of each size, each drawn once, in a folder of its own."""
    folder = tmp_path_factory.mktemp("drawn")

    @cache
    def draw(name, size):
        file = folder / "-".join(map(str, size)) / name / "first.svg"
        drawings(*size)[name](file)
        return file

    return draw


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", NAMES)
def test_figures_are_written_in_three_formats(drawn, size, name):
    first = drawn(name, size)
    assert sorted(file.name for file in first.parent.iterdir()) == [
        "first.html",
        "first.png",
        "first.svg",
    ]
    assert first.with_suffix(".png").read_bytes().startswith(b"\x89PNG")
    assert ElementTree.parse(first).getroot().tag == "{http://www.w3.org/2000/svg}svg"
    panels = range(size[0]) if name not in ("effects", "slices") else []
    assert [word for word in words(first) if word.startswith("Fold")] == [
        f"Fold {fold}" for fold in panels
    ]
    assert not any("optimistic" in word for word in words(first))


def test_a_fresh_process_writes_the_same_bytes(drawn, tmp_path):
    code = (
        "import sys; from pathlib import Path; from support import invented_figures\n"
        f"for size in {SIZES}:\n"
        "    for name, drawing in invented_figures.drawings(*size).items():\n"
        "        drawing(Path(sys.argv[1], '-'.join(map(str, size)), name, 'first.svg'))\n"
    )
    subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)],
        check=True,
        cwd=Path(__file__).parents[1],
        timeout=300,
    )
    for name, size in product(NAMES, SIZES):
        first = drawn(name, size)
        there = tmp_path / first.relative_to(first.parents[2])
        for kind in (".svg", ".png", ".html"):
            once, again = first.with_suffix(kind), there.with_suffix(kind)
            assert once.read_bytes() == again.read_bytes(), again


def test_files_name_no_date_and_no_version(tmp_path):
    drawings(1, 2)["points"](tmp_path / "points.svg")
    for file in nonempty(tmp_path.iterdir()):
        assert b"matplotlib.org" not in file.read_bytes()
        assert b"Software" not in file.read_bytes()
        assert b"dc:date" not in file.read_bytes()


def test_axes_name_their_units(drawn):
    assert "training loss (no unit)" in words(drawn("curves", (2, 4)))
    assert "epoch (trials continue the stem)" in words(drawn("curves", (2, 4)))
    assert "mean test Dice (0 to 1)" in words(drawn("points", (2, 4)))
    assert "mean selection Dice (0 to 1)" in words(drawn("build_up", (2, 4)))
    assert "from the best model (0) to the other (1)" in words(drawn("barriers", (2, 4)))
    assert "loss on selection cases (no unit)" in words(drawn("barriers", (2, 4)))
    assert "distance of the weights" in words(drawn("distances", (2, 4)))
    assert "(Dice points; 1 is 0.01 Dice)" in words(drawn("differences", (2, 4)))
    assert "mean test Dice (0 to 1)" in words(drawn("effects", (2, 4)))
    assert "5 mm" in words(drawn("slices", (2, 4)))


def test_published_protocol_is_marked(tmp_path):
    figures.selection_against_test(points(1, 2), tmp_path / "points.svg", "published")
    figures.build_up(records(1, 2, "published"), tmp_path / "build_up.svg")
    figures.barriers(basins(1, 2, "published"), tmp_path / "barriers.svg")
    figures.weight_distances(basins(1, 2, "published"), tmp_path / "distances.svg")
    none = dict.fromkeys(range(1))
    figures.paired_differences(differences(1, 2), tmp_path / "pairs.svg", "published", none)
    figures.hyperparameter_effects(effects(1, 2), tmp_path / "effects.svg", "published")
    figures.case_slices(slices(1), tmp_path / "slices.svg", "published")
    for name in ("points", "build_up", "barriers", "distances", "pairs", "effects", "slices"):
        assert any("optimistic" in word for word in words(tmp_path / f"{name}.svg"))


def two_models(selection: float, test: float) -> pd.DataFrame:
    """A best model with the given scores, and a trial that lies 0.01 below it in both."""
    rows = [
        (0, "a", "Best Model", selection, test),
        (0, "b", "Trial", selection - 0.01, test - 0.01),
    ]
    return pd.DataFrame(rows, columns=["fold", "name", "kind", "selection", "test"])


def test_the_legend_names_the_line_of_equal_scores_only_where_it_is_drawn(tmp_path):
    for name, test in (("near", 0.805), ("far", 0.5)):
        figures.selection_against_test(two_models(0.8, test), tmp_path / f"{name}.svg", "held-out")
    assert "equal scores" in words(tmp_path / "near.svg")
    assert "equal scores" not in words(tmp_path / "far.svg")


def test_a_soup_of_the_best_model_alone_does_not_hide_it(tmp_path):
    points = two_models(0.8, 0.8)
    soup = points.iloc[[0]].assign(name="Greedy Soup", kind="Greedy Soup")
    figures.selection_against_test(pd.concat([points, soup]), tmp_path / "one.svg", "held-out")
    drawing = (tmp_path / "one.svg").read_text()
    assert f"fill: none; stroke: {BLUE.lower()}" in drawing


def test_every_recipe_has_a_colour_and_a_shape_of_its_own(tmp_path):
    kinds = [*(f"{name} Soup" for name in ("Greedy", "Uniform", "Finished"))]
    kinds += ["Finished Best Single", "Long Run", "Ensemble"]
    assert len(set(SOUP_COLOURS)) == len(set(SOUP_MARKERS)) == len(kinds)
    # Those of the trials and of the best model are taken.
    assert not {GREY, BLUE} & set(SOUP_COLOURS)
    rows = [(0, kind, kind, 0.8 + n / 100, 0.8) for n, kind in enumerate(kinds)]
    frame = pd.DataFrame(rows, columns=["fold", "name", "kind", "selection", "test"])
    figures.selection_against_test(frame, tmp_path / "six.svg", "held-out")
    assert set(kinds) <= set(words(tmp_path / "six.svg"))
    drawing = (tmp_path / "six.svg").read_text()
    assert all(f"fill: {colour.lower()}" in drawing for colour in SOUP_COLOURS[:-1])


def test_build_up_without_a_greedy_soup_says_so(tmp_path):
    figures.build_up({}, tmp_path / "build_up.svg")
    assert words(tmp_path / "build_up.svg") == ["This study makes no greedy soup."]


def test_a_diverged_run_and_no_stem_are_drawn(tmp_path):
    history = pd.DataFrame({"epoch": [1, 2], "training_loss": [np.nan, np.inf]})
    figures.training_curves({(0, "lr=1"): history}, tmp_path / "curves.svg")
    assert "epoch" in words(tmp_path / "curves.svg")
    assert "stem" not in words(tmp_path / "curves.svg")
    assert "fold 0, lr=1\ntraining loss inf after 2 epochs" in titles(tmp_path / "curves.svg")


def test_diverged_models_leave_gaps_and_a_single_model_is_stated(tmp_path):
    record = basins(1, 2)[0]
    record["lines"][0]["losses"] = [0.2, None, None, None, None]
    record["distances"] = [[0.0, None], [None, 0.0]]
    figures.barriers({0: record}, tmp_path / "barriers.svg")
    figures.weight_distances({0: record}, tmp_path / "distances.svg")
    # Of the line's five points the first alone has a mark; of the four pairs two have a distance.
    (curve,) = elements(tmp_path / "barriers.svg", "g", "curve")
    assert len(curve.findall(f".//{SVG}g/{SVG}use")) == 1
    distances = [title.rpartition("\n")[2] for title in titles(tmp_path / "distances.svg")]
    assert distances.count("distance 0.0000") == 2
    assert distances.count("no distance: one has diverged") == 2
    figures.barriers(basins(1, 1), tmp_path / "alone.svg")
    assert "one model only" in words(tmp_path / "alone.svg")


@pytest.mark.parametrize("name", ["curves", "build_up", "barriers", "distances"])
def test_a_trial_is_called_by_what_distinguishes_it_with_its_id_in_the_tooltip(tmp_path, name):
    trials = [f"{number:08x}" for number in range(4)]
    path, labels = tmp_path / "figure.svg", {trial: f"lr {trial[-1]}, seed 0" for trial in trials}
    curve = pd.DataFrame({"epoch": [1, 2], "training_loss": [1.0, 0.5]})
    {
        "curves": lambda: figures.training_curves({(0, t): curve for t in trials}, path, labels),
        "build_up": lambda: figures.build_up(records(1, 4), path, labels),
        "barriers": lambda: figures.barriers(basins(1, 4), path, labels),
        "distances": lambda: figures.weight_distances(basins(1, 4), path, labels),
    }[name]()
    # The best model is where the lines to the others begin.
    for trial in trials[1:]:
        # In the figure of distances a rank stands before it.
        assert any(word.rpartition(": ")[2] == labels[trial] for word in words(path))
        assert any(f"{labels[trial]} ({trial})" in title for title in titles(path))
    assert not any(trial in word for trial in trials for word in words(path))


def test_models_are_named_where_there_are_few(tmp_path):
    for trials in (4, 40):
        figures.weight_distances(basins(1, trials), tmp_path / f"{trials}.svg")
    assert "4: 00000003" in words(tmp_path / "4.svg")
    assert not any("00000003" in word for word in words(tmp_path / "40.svg"))
    assert "models, best single model first" in words(tmp_path / "40.svg")
