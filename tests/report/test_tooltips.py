"""Tooltips: every run is named, at its own mark, and the pages need nothing from outside."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from support import invented_figures as invented
from support.checks import nonempty
from voxelsoup.report import figures
from voxelsoup.report.figures.tooltips import Tooltips

SVG, XLINK = "{http://www.w3.org/2000/svg}", "{http://www.w3.org/1999/xlink}"


def marks(path, tag: str = "use") -> dict[str, ElementTree.Element]:
    """Title -> the mark that it stands in."""
    found = {}
    for element in ElementTree.parse(path).iter(f"{SVG}{tag}"):
        title = element.find(f"{SVG}title")
        if title is not None and element.get("class") == "mark":
            found[title.text] = element
    return found


def runs(path) -> list[ElementTree.Element]:
    tree = ElementTree.parse(path)
    return [group for group in tree.iter(f"{SVG}g") if group.get("class") == "curve"]


@pytest.mark.parametrize("name", invented.NAMES)
def test_pages_hold_the_drawing_and_refer_to_nothing_outside(tmp_path, name):
    invented.drawings(2, 4)[name](tmp_path / "figure.svg")
    page = (tmp_path / "figure.html").read_text()
    assert page.startswith("<!DOCTYPE html>") and "<?xml" not in page
    assert "<script" not in page and "@import" not in page
    references = re.findall(r"""(?:src|href)\s*=\s*["']([^"']*)""", page)
    assert references and all(r.startswith(("#", "data:")) for r in references), references
    assert not re.findall(r"url\((?!#)", page)
    for title in nonempty(invented.titles(tmp_path / "figure.svg")):
        assert title.split("\n")[0].replace("&", "&amp;") in page


@pytest.mark.parametrize("name", ["curves", "barriers", "points", "build_up"])
def test_every_run_of_every_fold_is_named(tmp_path, name):
    trials = [f"{number:08x}" for number in range(100)]
    path, names = tmp_path / "figure.svg", {trial: f"{trial} lr=<{trial}>" for trial in trials}
    history = pd.DataFrame({"epoch": [1, 2], "training_loss": [1.0, 0.5]})
    frame = pd.DataFrame(
        [(f, trial, "Trial", 0.5, n / 100) for f in range(2) for n, trial in enumerate(trials)],
        columns=["fold", "name", "kind", "selection", "test"],
    )
    {
        "curves": lambda: figures.training_curves(
            {(f, trial): history for f in range(2) for trial in trials}, path, names
        ),
        "points": lambda: figures.selection_against_test(frame, path, "held-out", names),
        "build_up": lambda: figures.build_up(invented.records(2, 100), path, names),
        "barriers": lambda: figures.barriers(invented.basins(2, 100), path, names),
    }[name]()
    text = "\n".join(invented.titles(path))
    for trial in trials[1:]:
        assert text.count(f"lr=<{trial}>") >= 2, trial
    assert "fold 0" in text and "fold 1" in text


def test_tooltips_fall_back_on_trial_ids(tmp_path):
    invented.drawings(1, 4)["barriers"](tmp_path / "figure.svg")
    assert any("00000003" in title for title in invented.titles(tmp_path / "figure.svg"))


def test_the_tooltip_of_a_point_is_at_that_point(tmp_path):
    points = invented.points(1, 40)
    # Points without a score are not drawn, and must not shift the texts of the others.
    points.loc[[3, 17], "test"] = np.nan
    points.loc[8, "selection"] = np.inf
    figures.selection_against_test(points, tmp_path / "points.svg", "held-out")
    found = marks(tmp_path / "points.svg")
    assert len(invented.titles(tmp_path / "points.svg")) == len(points) - 3
    # The ring around the best model is a path of its own.
    (ring,) = marks(tmp_path / "points.svg", "path")
    assert ring.startswith("fold 0, Best Model: 0\n")
    assert len(found) == len(points) - 4
    places, scores = [], []
    for title, mark in found.items():
        places.append((float(mark.get("x")), -float(mark.get("y"))))
        scores.append([float(score) for score in re.findall(r"Dice (\d\.\d+)", title)])
    for axis in (0, 1):
        there, said = np.array(places)[:, axis], np.array(scores)[:, axis]
        assert np.corrcoef(there, said)[0, 1] > 0.99999
    named = points[np.isfinite(points[["selection", "test"]]).all(axis="columns")].iloc[1:]
    for row in named.itertuples():
        title = next(title for title in found if f"{row.selection:.4f}, test" in title)
        assert row.kind in title or row.name in title.split("\n")[0]


def test_the_tooltip_of_a_candidate_is_at_that_candidate(tmp_path):
    record = invented.records(1, 12)
    record[0]["decisions"][4] |= {"candidate_score": None}
    figures.build_up(record, tmp_path / "build_up.svg", {"00000003": "the fourth"})
    found = ElementTree.parse(tmp_path / "build_up.svg").getroot()
    ranks, places = [], []
    for use in found.iter(f"{SVG}use"):
        if use.get("class") == "mark":
            text = use.find(f"{SVG}title").text
            ranks.append(int(re.search(r"ingredient (\d+)", text)[1]))
            places.append(float(use.get("x")))
            decision = "kept" if (ranks[-1] - 1) % 2 or ranks[-1] == 1 else "left out"
            assert decision in text
            assert ("the fourth" in text) == (ranks[-1] == 4)
            assert ("stopped early" in text) == (ranks[-1] == 5)
    # Each model alone, and all candidates but the one that was stopped.
    assert len(ranks) == 12 + 11
    assert np.corrcoef(ranks, places)[0, 1] > 0.99999


def test_the_tooltip_of_a_case_is_at_its_difference(tmp_path):
    table = invented.differences(1, 30)[0]
    figures.paired_differences({0: table}, tmp_path / "pairs.svg", "held-out", {})
    dots, stems = marks(tmp_path / "pairs.svg"), marks(tmp_path / "pairs.svg", "path")
    assert len(dots) == len(stems) == 30 and list(dots) == list(stems)
    said = [float(re.search(r"difference (\S+) Dice points", text)[1]) for text in dots]
    heights = [-float(dot.get("y")) for dot in dots.values()]
    assert np.corrcoef(said, heights)[0, 1] > 0.99999
    for row in table.itertuples():
        text = next(t for t in dots if f"case {row.case}\n" in t)
        assert f"{100 * (row.soup - row.best):+.2f}" in text


def test_the_tooltip_of_a_dot_names_run_fold_and_score(tmp_path):
    effects = invented.effects(2, 6)
    figures.hyperparameter_effects(effects, tmp_path / "effects.svg", "held-out")
    found = marks(tmp_path / "effects.svg")
    dots = {text: use for text, use in found.items() if text.startswith("fold")}
    assert len(dots) == len(effects.trials)
    said = [float(re.search(r"Dice (\S+)", text)[1]) for text in dots]
    assert np.corrcoef(said, [-float(u.get("y")) for u in dots.values()])[0, 1] > 0.99999
    for row in effects.trials.itertuples():
        assert any(text.startswith(f"fold {row.fold}, {row.trial} of {row.key}\n") for text in dots)


def test_cells_name_both_models_where_there_are_few(tmp_path):
    record = invented.basins(1, 3)
    record[0]["distances"][2][1] = None
    figures.weight_distances(record, tmp_path / "few.svg", {"00000001": "the second"})
    assert len(invented.titles(tmp_path / "few.svg")) == 9
    assert invented.titles(tmp_path / "few.svg")[1].startswith(
        "00000000\nthe second (00000001)\ndistance 0."
    )
    assert invented.titles(tmp_path / "few.svg")[7] == (
        "00000002\nthe second (00000001)\nno distance: one has diverged"
    )
    figures.weight_distances(invented.basins(1, 41), tmp_path / "many.svg")
    assert invented.titles(tmp_path / "many.svg") == []


def test_curves_have_a_wide_area_below_all_of_them(tmp_path):
    invented.drawings(1, 20)["curves"](tmp_path / "curves.svg")
    tree = ElementTree.parse(tmp_path / "curves.svg")
    curves = runs(tmp_path / "curves.svg")
    assert len(curves) == 21
    kinds = [[child.get("class") for child in panel] for panel in tree.iter(f"{SVG}g")]
    (panel,) = [list(filter(None, of_panel)) for of_panel in kinds if "curve" in of_panel]
    assert panel == 21 * ["area"] + 21 * ["curve"]
    areas = [use for use in tree.iter(f"{SVG}use") if use.get("class") == "area"]
    for area, curve in zip(areas, curves, strict=True):
        assert area.get(f"{XLINK}href") == f"#{curve.find(f'.//{SVG}path[@id]').get('id')}"
        assert area.find(f"{SVG}title").text == curve.find(f"{SVG}title").text
        assert "stroke-opacity: 0;" in area.get("style")


def test_texts_that_do_not_fit_the_marks_are_refused(tmp_path):
    figure, tooltips = Figure(), Tooltips()
    dots = figure.add_subplot().scatter([0.0, 1.0, np.nan], [0.0, 1.0, 2.0])
    tooltips.marks(dots, ["one", "two", "three"])
    figure.savefig(tmp_path / "figure.svg")
    with pytest.raises(ValueError, match="2 marks, 3 texts"):
        tooltips.put_into(tmp_path / "figure.svg")


def test_tooltips_escape_markup(tmp_path):
    figures.training_curves(
        {(0, "a"): pd.DataFrame({"epoch": [1, 2], "training_loss": [1.0, 2.0]})},
        tmp_path / "curves.svg",
        {"a": "<script>&</script>"},
    )
    assert "<script>&</script>" in invented.titles(tmp_path / "curves.svg")[0]
    assert "<script" not in (tmp_path / "curves.html").read_text()
