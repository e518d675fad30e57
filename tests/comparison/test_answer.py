"""The answer paragraph: its sentences about the numbers, shown verbatim."""

from __future__ import annotations

import html
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from docutils.core import publish_parts
from hypothesis import given, settings
from hypothesis import strategies as st

from support.checks import nonempty
from support.compared_folds import compared
from voxelsoup.comparison.answer import answer_of, answer_paragraph, key_table, write_answer
from voxelsoup.comparison.findings import find
from voxelsoup.comparison.folds import FoldComparison
from voxelsoup.comparison.names import OPTIMISTIC
from voxelsoup.comparison.overview import overview
from voxelsoup.comparison.statistics import SeedSpread

CASES = 20
BEST = {fold: np.linspace(0.5, 0.7, CASES) + 0.01 * fold for fold in range(3)}
GAINS = {"Greedy Soup": 0.02, "Uniform Soup": -0.01, "Ensemble": 0.03, "Best Single": 0.0}
SPREADS = {
    None: SeedSpread(4, 3, 0.003, 0.01),
    0: SeedSpread(2, 3, 0.004, 0.01),
    1: SeedSpread(2, 3, 0.002, 0.01),
}


def folds_of(
    titles: Sequence[str], count: int = 3, protocol: str = "held-out", kept: Sequence[int] = (3,)
) -> list[FoldComparison]:
    """Folds whose greedy soups kept so many models, over and over, and whose ensembles have 5."""
    return [
        compared(
            {title: BEST[fold] + GAINS[title] * np.linspace(0.5, 1.5, CASES) for title in titles},
            BEST[fold],
            fold,
            protocol,
            trials={f"{number:08x}": BEST[fold] for number in range(1, 8)},
            ingredients={
                title: {"Ensemble": 5, "Best Single": 1}.get(title, kept[fold % len(kept)])
                for title in titles
            },
            costs={"Ensemble": 5} if "Ensemble" in titles else {},
        )
        for fold in range(count)
    ]


def answer(
    folds: Sequence[FoldComparison], spreads: dict[int, SeedSpread] | None = None
) -> tuple[str, str]:
    """Headline and paragraph."""
    headline, sentences = answer_of(find(folds, {}), spreads or {}, folds)
    return headline, answer_paragraph(sentences)


def test_the_headline_is_about_the_greedy_soup_in_any_order_of_findings() -> None:
    for titles in (["Greedy Soup"], ["Ensemble", "Uniform Soup", "Greedy Soup"]):
        headline, _ = answer(folds_of(titles))
        assert re.fullmatch(
            r"Greedy soup better than best single model by 2\.0 Dice points \[.*\], p < 0\.001, "
            r"60 cases, 3 folds\.",
            headline,
        )


def test_answer_of_a_greedy_soup_alone_is_one_paragraph() -> None:
    _, paragraph = answer(folds_of(["Greedy Soup"]))
    mean = np.mean([best.mean() for best in BEST.values()])
    assert paragraph == (
        f"The best single model of each fold, chosen from 8 models, has a mean Dice of {mean:.4f} "
        "on the test cases. The greedy soup is made of 3 models in each fold."
    )


@pytest.mark.parametrize(
    ("kept", "count", "sentence"),
    [
        ([1], 1, "The greedy soup is made of one model."),
        ([4], 1, "The greedy soup is made of 4 models."),
        ([1], 3, "The greedy soup is made of one model in each fold."),
        ([1, 2, 1], 2, "The greedy soup is made of 1 and 2 models in folds 0 and 1."),
        ([3, 5, 4], 3, "The greedy soup is made of 3, 5 and 4 models in folds 0, 1 and 2."),
    ],
)
def test_answer_states_the_number_of_models_in_the_soup(
    kept: list[int], count: int, sentence: str
) -> None:
    _, paragraph = answer(folds_of(["Greedy Soup"], count, kept=kept))
    assert paragraph.endswith(sentence)


def test_answer_lists_other_recipes_after_the_headline_and_an_ensemble_with_its_cost() -> None:
    _, paragraph = answer(folds_of(["Uniform Soup", "Ensemble", "Greedy Soup"]))
    first, *others = re.split(r"(?<=\.) (?=[A-Z])", paragraph)[1:]
    assert first == "The greedy soup is made of 3 models in each fold."
    starts = [
        "Uniform soup worse than best single model by 1.0 Dice points",
        "Ensemble better than best single model by 3.0 Dice points",
        "Ensemble better than greedy soup by 1.0 Dice points",
        "For one prediction, the ensemble runs 5 networks and the greedy soup 1.",
        "The p values are adjusted for the number of comparisons made.",
    ]
    assert len(others) == len(starts)
    for sentence, start in zip(others, starts, strict=True):
        assert sentence.startswith(start)


def test_answer_of_an_ensemble_alone_states_its_cost() -> None:
    headline, paragraph = answer(folds_of(["Ensemble"]))
    assert headline.startswith("Ensemble better than best single model by 3.0 Dice points")
    assert paragraph.endswith(
        "The ensemble is made of 5 models in each fold, all of which run for every prediction."
    )


def test_answer_of_the_best_ingredient_says_that_it_scores_the_same() -> None:
    headline, paragraph = answer(folds_of(["Best Single"], 2))
    assert headline == "Best ingredient and best single model score the same on all 40 cases."
    assert paragraph.startswith("The best single model of each fold, chosen from 8 models, has")
    assert paragraph.endswith("on the test cases.")


def test_a_fold_without_soups_has_no_answer() -> None:
    headline, sentences = answer_of([], {}, folds_of([]))
    assert headline == "This study has no soup to compare with the best single model."
    assert sentences == []


def test_the_headline_shows_the_spread_of_seeds_beside_its_difference() -> None:
    folds = folds_of(["Uniform Soup", "Greedy Soup"])
    _, paragraph = answer(folds, SPREADS)
    mean = find(folds, {})[1].difference.mean
    assert (
        "The seed alone moves the mean Dice of a model by 0.30 Dice points (standard deviation); "
        f"the greedy soup differs from the best single model by {100 * mean:+.2f}."
    ) in paragraph
    assert "seed" not in answer(folds)[1]


@pytest.mark.parametrize("protocol", ["held-out", "published"])
def test_answer_calls_the_published_protocol_optimistic(protocol: str) -> None:
    _, paragraph = answer(folds_of(["Greedy Soup"], protocol=protocol))
    assert paragraph.endswith(f"All numbers are {OPTIMISTIC}.") == (protocol == "published")
    assert ("optimistic" in paragraph) == (protocol == "published")


def test_answer_states_the_largest_number_of_models_a_fold_chose_from() -> None:
    folds = folds_of(["Greedy Soup"], 2)
    folds[0] = replace(folds[0], selection_scores={"aaaa0000": 0.6, "Greedy Soup": 0.7})
    assert "chosen from 8 models" in answer(folds)[1]
    assert "chosen from one model" in answer(folds[:1])[1]


def test_answer_includes_the_comparison_of_schedules() -> None:
    trials = {"free": [0.75] * 8, "cosine": [0.5] * 8}
    fold = compared({"Greedy Soup": [0.5] * 8}, [0.5] * 8, trials=trials)
    parameters = {name: {"optimizer.schedule": name} for name in trials}
    parameters["free"] = {"optimizer.schedule": "schedule-free"}
    headline, sentences = answer_of(find([fold], parameters), {}, [fold])
    assert headline.startswith("Greedy soup and best single model score the same")
    assert any(
        sentence.startswith("Schedule-free better than cosine by 25.0 Dice points")
        for sentence in sentences
    )


def test_key_numbers_are_means_over_all_regions() -> None:
    frame = overview(folds_of(["Greedy Soup", "Ensemble"], 2))
    table = key_table(frame)
    whole = frame[frame["region"] == "mean"].set_index("model")
    assert list(table.index) == ["Best Model", "Greedy Soup", "Ensemble"]
    for model, row in table.iterrows():
        mean, deviation = whole.loc[model, ["dice_mean", "dice_std"]]
        assert row["Dice"] == f"{mean:.4f} ± {deviation:.4f}"
    assert table["models per prediction"].tolist() == ["1", "1", "5"]
    difference = whole.loc["Ensemble", "dice_difference"]
    assert table.iloc[2, 1].startswith(f"{100 * difference:+.2f} [")


# How it is shown

AWKWARD = "1. *Dice* of `a_` <b> & |c| \\ is 0.9 ± 0.1_ [1]: see http://x."
SIGNS = "*`|_<>[]{}\\:.-+=~^#&'\"()/$%!?;,@ abA01é±³×\n\t"


def rendered(rst: Path) -> str:
    """The HTML that docutils makes, which must find nothing to say about it."""
    settings_overrides = {"report_level": 1, "halt_level": 1}
    parts = publish_parts(rst.read_text(), writer="html", settings_overrides=settings_overrides)
    return parts["body"]


def words_of(page: str) -> str:
    return " ".join(html.unescape(re.sub(r"<[^>]*>", "", page)).split())


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.text(SIGNS, min_size=1).filter(str.strip), min_size=1, max_size=3),
    st.text(SIGNS, min_size=1).filter(str.strip),
)
def test_answer_page_shows_any_text_verbatim(
    tmp_path_factory: pytest.TempPathFactory, sentences: list[str], headline: str
) -> None:
    folder = tmp_path_factory.mktemp("answer")
    write_answer(folder / "a.rst", folder / "a.html", sentences, headline)
    expected = " ".join([*headline.split(), *" ".join(sentences).split()])
    assert words_of(rendered(folder / "a.rst")) == expected
    page = (folder / "a.html").read_text()
    assert words_of(page[page.index("<main>") :]) == expected


@pytest.mark.parametrize("text", ["Yes::", "See: a::", "::", "a\\::", "- no", "|x|", "1) a", "x_"])
def test_answer_escapes_markup_at_the_edges(tmp_path: Path, text: str) -> None:
    write_answer(tmp_path / "a.rst", tmp_path / "a.html", [text], text)
    assert words_of(rendered(tmp_path / "a.rst")) == f"{text} {text}"


def test_answer_page_shows_its_texts_verbatim_with_the_table(tmp_path: Path) -> None:
    table = pd.DataFrame({"Dice <": ["0.9"]}, index=pd.Index(["Greedy & Soup"], name="model"))
    rst, page = tmp_path / "answer.rst", tmp_path / "answer.html"
    write_answer(rst, page, [AWKWARD, "Two\nlines."], "- Yes: *maybe*", table)
    body = rendered(rst)
    assert "<em>" not in body and "<ol" not in body and "<ul" not in body
    assert 'class="answer-headline"' in body
    for text in (body, page.read_text()):
        assert "*Dice* of `a_` &lt;b&gt; &amp; |c| \\ is 0.9 ± 0.1_ [1]: see" in text
        assert "Two lines." in text
        assert "- Yes: *maybe*" in text
        assert "Greedy &amp; Soup" in text and "Dice &lt;" in text
    assert "<b>" not in page.read_text()


def test_answer_page_shows_every_cell_of_the_key_table(tmp_path: Path) -> None:
    folds = folds_of(["Greedy Soup", "Ensemble"], protocol="published")
    headline, sentences = answer_of(find(folds, {}), SPREADS, folds)
    table = key_table(overview(folds))
    write_answer(tmp_path / "a.rst", tmp_path / "a.html", sentences, headline, table)
    for text in (rendered(tmp_path / "a.rst"), (tmp_path / "a.html").read_text()):
        assert f"{headline} {' '.join(sentences)}" in words_of(text)
        for cell in nonempty(table.to_numpy().ravel()):
            assert cell in words_of(text)


@pytest.mark.parametrize("sentences", [[], [" ", "\n"]])
def test_an_answer_without_sentences_is_refused(tmp_path: Path, sentences: list[str]) -> None:
    with pytest.raises(ValueError, match="at least one sentence"):
        write_answer(tmp_path / "a.rst", tmp_path / "a.html", sentences, "Yes")
