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
from voxelsoup.comparison.answer import (
    NOT_FINISHED,
    answer_of,
    facts_table,
    key_table,
    outcome,
    secondary_table,
    write_answer,
)
from voxelsoup.comparison.findings import find
from voxelsoup.comparison.folds import FoldComparison
from voxelsoup.comparison.names import BEST_MODEL, OPTIMISTIC
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


def about(folds: Sequence[FoldComparison]) -> tuple[str, str]:
    """What a study is about by default: its greedy soup, or else its first one."""
    titles = [title for title in folds[0].rows if title != BEST_MODEL]
    return ("Greedy Soup" if "Greedy Soup" in titles else titles[0]), BEST_MODEL


def answer(
    folds: Sequence[FoldComparison], primary: tuple[str, str] | None = None
) -> tuple[str, str]:
    """The two paragraphs."""
    findings = find(folds, {}, primary or about(folds))
    first, second = answer_of(findings, folds[0].protocol)
    return first, second


def facts(folds: Sequence[FoldComparison], spreads: dict | None = None) -> dict[str, str]:
    return dict(facts_table(folds, spreads or {}, about(folds), "One trial diverged.")[""])


def test_the_facts_say_where_both_finished_models_are_one() -> None:
    folds = folds_of(["Greedy Soup"])
    assert "finish" not in facts(folds)
    same = [replace(fold, one_finish=fold.fold != 1) for fold in folds]
    assert facts(same)["finish"] == (
        "In folds 0 and 2 the finished soup and the finished best single model are one model: the "
        "soup had but one ingredient."
    )


# The two paragraphs


def test_the_first_paragraph_is_about_the_primary_question_alone() -> None:
    for titles in (["Greedy Soup"], ["Ensemble", "Uniform Soup", "Greedy Soup"]):
        first, _ = answer(folds_of(titles))
        assert re.fullmatch(
            r"Greedy soup better than best single model by 2\.0 Dice points \[.*\], p < 0\.001, "
            r"60 cases, 3 folds\.",
            first,
        )
    first, _ = answer(folds_of(["Uniform Soup", "Greedy Soup"]), ("Uniform Soup", "Greedy Soup"))
    assert first.startswith("Uniform soup worse than greedy soup by 3.0 Dice points")


@pytest.mark.parametrize("protocol", ["held-out", "published"])
def test_the_first_paragraph_calls_the_published_protocol_optimistic(protocol: str) -> None:
    first, second = answer(folds_of(["Greedy Soup"], protocol=protocol))
    assert first.endswith(f"All numbers are {OPTIMISTIC}.") == (protocol == "published")
    assert "optimistic" not in second


def test_a_study_without_a_finish_says_that_it_was_not_run_and_how_to() -> None:
    _, second = answer(folds_of(["Greedy Soup", "Ensemble"]))
    assert second == NOT_FINISHED
    assert "`soup.finish`" in second and second.count(".") == 2


# Mean gains over the best single model: of the finished soup, of the control, of the long run.
NOISE = np.random.default_rng(0).normal(0, 0.02, CASES)


def finished(soup: float, control: float, long_run: float | None = None) -> list[FoldComparison]:
    """A study that finishes a soup; models differ on each case by more than the given means."""
    gains = {"Greedy Soup": 0.0, "Finished Soup": soup, "Finished Best Model": control}
    gains |= {} if long_run is None else {"Long Run": long_run}
    noise = NOISE - NOISE.mean()
    soups = {t: BEST[0] + g + np.roll(noise, i) for i, (t, g) in enumerate(gains.items())}
    return [compared(soups, BEST[0])]


FINISH = ("Finished Soup", "Best Model")


def test_the_gain_is_the_finishs_where_the_control_is_as_good() -> None:
    first, second = answer(finished(0.05, 0.05), FINISH)
    assert first.startswith("Finished soup better than best single model by 5.0 Dice points")
    gain, between, whose = re.split(r"(?<=\.) (?=[A-Z])", second)
    assert gain.startswith("Finished best single model better than best single model by 5.0 Dice")
    assert between.startswith("No difference shown between finished soup and finished best single")
    assert whose == "So the gain is the finish's, not the soup's."


@pytest.mark.parametrize(
    ("soup", "control", "whose"),
    [
        (0.09, 0.03, "The finished soup gains more than the finish alone."),
        (0.03, 0.09, "The finish alone gains more: the soup adds nothing to it."),
        (0.0, 0.0, "No gain is shown that would be the soup's."),
        (-0.05, -0.05, "No gain is shown that would be the soup's."),
    ],
)
def test_the_second_paragraph_says_whose_the_gain_is(
    soup: float, control: float, whose: str
) -> None:
    _, second = answer(finished(soup, control), FINISH)
    assert "inished best single model" in second.partition("Dice points")[0]
    assert second.endswith(whose)
    assert ("the finish's, not the soup's" in second) is False


def test_a_soup_that_is_not_finished_is_beside_the_finished_best_model_too() -> None:
    scores = finished(0.05, 0.05)[0].case_scores
    soups = {"Greedy Soup": "Finished Soup", "Finished Best Model": "Finished Best Model"}
    _, second = answer([compared({t: scores[s].to_list() for t, s in soups.items()}, BEST[0])])
    assert "No difference shown between greedy soup and finished best single model" in second
    assert second.endswith(
        "What the greedy soup gains, the finish alone gains too: no gain is the soup's own."
    )


def test_a_primary_question_about_the_control_itself_has_no_soup_in_it() -> None:
    first, second = answer(finished(0.05, 0.05), ("Finished Best Model", "Best Model"))
    assert first.startswith("Finished best single model better than")
    assert "no soup has a part" in second


def test_a_primary_question_against_the_control_is_not_said_twice() -> None:
    first, second = answer(finished(0.05, 0.05), ("Finished Soup", "Finished Best Model"))
    assert first.startswith("No difference shown between finished soup and finished best single")
    assert "between finished soup" not in second
    assert second.endswith("So the gain is the finish's, not the soup's.")


@pytest.mark.parametrize(
    ("long_run", "words"),
    [
        (0.05, "One long run with all steps of the study is as good, as far as this study shows."),
        (0.12, "One long run with all steps of the study is better."),
    ],
)
def test_a_long_run_that_wins_or_draws_is_named(long_run: float, words: str) -> None:
    assert answer(finished(0.05, 0.02, long_run), FINISH)[1].endswith(words)


def test_a_long_run_that_loses_stands_in_the_table_alone() -> None:
    folds = finished(0.09, 0.02, 0.0)
    assert "long run" not in " ".join(answer(folds, FINISH))
    table = secondary_table(find(folds, {}, FINISH))
    assert table.loc["finished soup – long run", "shown"] == "better"


@settings(max_examples=10, deadline=None)
@given(st.floats(-0.06, 0.06), st.floats(-0.06, 0.06), st.floats(-0.06, 0.06))
def test_the_first_paragraph_has_at_most_three_sentences_whatever_the_numbers(
    soup: float, control: float, long_run: float
) -> None:
    folds = finished(soup, control, long_run)
    first, second = answer([replace(fold, protocol="published") for fold in folds], FINISH)
    assert len(re.findall(r"\.(?= [A-Z]|$)", first)) == 2
    assert "inished best single model" in second
    (primary,) = [f for f in find(folds, {}, FINISH) if f.primary]
    assert (outcome(primary) == "no difference") == first.startswith("No difference shown")


# The tables below them


def test_the_secondary_table_has_all_other_comparisons_over_all_folds() -> None:
    folds = folds_of(["Uniform Soup", "Ensemble", "Greedy Soup"])
    findings = find(folds, {}, about(folds))
    table = secondary_table(findings)
    shown = [f for f in findings if f.fold is None and not f.primary]
    assert list(table.index) == [f"{f.first} – {f.second}" for f in shown]
    assert table["shown"].tolist() == [outcome(f) for f in shown]
    assert table.loc["uniform soup – best single model", "shown"] == "worse"
    assert set(table["interval"]) == {"95 %", "97.5 %", "98.33 %", "98.75 %"}
    assert secondary_table(findings[:1]).empty


def test_facts_name_the_question_the_choice_and_what_is_left_out() -> None:
    folds = folds_of(["Uniform Soup", "Greedy Soup"])
    found = facts(folds)
    mean = np.mean([best.mean() for best in BEST.values()])
    assert found["best single model"] == (
        f"Chosen in each fold from 8 models; mean Dice {mean:.4f} on the test cases."
    )
    assert found["primary question"].startswith("greedy soup against best single model, by")
    assert "tested by itself at 5 %" in found["primary question"]
    assert "Holm" in found["other comparisons"]
    assert found["diverged"] == "One trial diverged."
    assert "seed" not in found
    folds[0] = replace(folds[0], selection_scores={"aaaa0000": 0.6, "Greedy Soup": 0.7})
    assert "from 8 models" in facts(folds)["best single model"]
    assert "from one model" in facts(folds[:1])["best single model"]


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
def test_facts_state_the_number_of_models_in_the_soup(
    kept: list[int], count: int, sentence: str
) -> None:
    assert facts(folds_of(["Greedy Soup"], count, kept=kept))["ingredients"] == sentence


def test_facts_of_an_ensemble_state_its_cost() -> None:
    assert facts(folds_of(["Ensemble"]))["ingredients"] == (
        "The ensemble is made of 5 models in each fold, all of which run for every prediction."
    )
    assert "ingredients" not in facts(folds_of(["Best Single"]))


def test_facts_show_the_spread_of_seeds_beside_the_difference() -> None:
    folds = folds_of(["Uniform Soup", "Greedy Soup"])
    mean = find(folds, {}, about(folds))[0].difference.mean
    assert facts(folds, SPREADS)["seed"] == (
        "The seed alone moves the mean Dice of a model by 0.30 Dice points (standard deviation); "
        f"the greedy soup differs from the best single model by {100 * mean:+.2f}."
    )


def test_the_best_ingredient_is_said_to_score_the_same() -> None:
    first, _ = answer(folds_of(["Best Single"], 2))
    assert first == "Best ingredient and best single model score the same on all 40 cases."


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
    st.lists(st.text(SIGNS, min_size=1).filter(str.strip), max_size=3),
    st.text(SIGNS, min_size=1).filter(str.strip),
)
def test_answer_page_shows_any_text_verbatim(
    tmp_path_factory: pytest.TempPathFactory, sentences: list[str], headline: str
) -> None:
    folder = tmp_path_factory.mktemp("answer")
    write_answer(folder / "a.rst", folder / "a.html", [headline, *sentences], {})
    expected = " ".join([*headline.split(), *" ".join(sentences).split()])
    assert words_of(rendered(folder / "a.rst")) == expected
    page = (folder / "a.html").read_text()
    assert words_of(page[page.index("<main>") :]) == expected


@pytest.mark.parametrize("text", ["Yes::", "See: a::", "::", "a\\::", "- no", "|x|", "1) a", "x_"])
def test_answer_escapes_markup_at_the_edges(tmp_path: Path, text: str) -> None:
    write_answer(tmp_path / "a.rst", tmp_path / "a.html", [text, text], {})
    assert words_of(rendered(tmp_path / "a.rst")) == f"{text} {text}"


def test_answer_page_shows_its_texts_verbatim_with_the_table(tmp_path: Path) -> None:
    table = pd.DataFrame({"Dice <": ["0.9"]}, index=pd.Index(["Greedy & Soup"], name="model"))
    rst, page = tmp_path / "answer.rst", tmp_path / "answer.html"
    tables = {"<All> models": table, "None": table.iloc[:0]}
    write_answer(rst, page, ["- Yes: *maybe*", AWKWARD, "Two\nlines."], tables)
    body = rendered(rst)
    assert "<em>" not in body and "<ol" not in body and "<ul" not in body
    assert 'class="answer-headline"' in body
    for text in (body, page.read_text()):
        assert "*Dice* of `a_` &lt;b&gt; &amp; |c| \\ is 0.9 ± 0.1_ [1]: see" in text
        assert "Two lines." in text
        assert "- Yes: *maybe*" in text
        assert "Greedy &amp; Soup" in text and "Dice &lt;" in text
        assert "<caption>&lt;All&gt; models</caption>" in text
        assert text.count("<table") == 1
    assert "<b>" not in page.read_text()


def test_answer_page_shows_every_cell_of_its_tables(tmp_path: Path) -> None:
    folds = folds_of(["Greedy Soup", "Ensemble"], protocol="published")
    findings = find(folds, {}, about(folds))
    paragraphs = answer_of(findings, "published")
    tables = {
        "models": key_table(overview(folds)),
        "others": secondary_table(findings),
        "about": facts_table(folds, SPREADS, about(folds)),
    }
    write_answer(tmp_path / "a.rst", tmp_path / "a.html", paragraphs, tables)
    for text in (rendered(tmp_path / "a.rst"), (tmp_path / "a.html").read_text()):
        assert " ".join(paragraphs) in words_of(text)
        assert text.count("<table") == 3
        for table in tables.values():
            for cell in nonempty([*table.index, *table.to_numpy().ravel()]):
                assert cell in words_of(text)


@pytest.mark.parametrize("paragraphs", [[], [" ", "\n"], ["Yes.", " "]])
def test_an_answer_with_an_empty_paragraph_is_refused(
    tmp_path: Path, paragraphs: list[str]
) -> None:
    with pytest.raises(ValueError, match="at least one sentence"):
        write_answer(tmp_path / "a.rst", tmp_path / "a.html", paragraphs, {})
