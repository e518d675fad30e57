"""Scores of candidates: stopping early decides as all cases would, and no case is scored twice."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from voxelsoup.evaluation.case_scores import LOSS, Scores, mean_score
from voxelsoup.models.weight_files import Weights
from voxelsoup.soups.averaging import WeightedModel
from voxelsoup.soups.selection import Cache, CandidateSoup, Selection, loses

REGIONS = ["TC", "WT"]
dice = st.floats(0, 1)


def scores_of(values: list[tuple[float, float]]) -> Scores:
    return {
        f"case{n}": {**dict(zip(REGIONS, pair, strict=True)), LOSS: 0.5}
        for n, pair in enumerate(values)
    }


class Known:
    """A scorer that knows the answers, and counts the questions."""

    def __init__(self, scores: Scores) -> None:
        self.scores, self.asked = scores, 0

    def use(self, weights: Weights) -> None:
        """The answers are the same for all weights."""

    def score(self, case: str) -> dict[str, float]:
        self.asked += 1
        return dict(self.scores[case])


def candidate(name: str = "a") -> CandidateSoup:
    return CandidateSoup([WeightedModel(Path(name), name, 1.0)], dict)


def selection_of(
    scores: Scores, cache: Cache | None = None, race: float | None = None
) -> tuple[Selection, Known]:
    scorer = Known(scores)
    return Selection(list(scores), [scorer], cache or Cache(None, ""), race), scorer


pairs = st.lists(st.tuples(dice, dice, dice, dice), min_size=1, max_size=12)


@given(pairs)
def test_bound_decides_as_all_cases_would(rows: list[tuple[float, ...]]) -> None:
    mine, incumbent = scores_of([r[:2] for r in rows]), scores_of([r[2:] for r in rows])
    selection, scorer = selection_of(mine)
    (outcome,) = selection.challenge([candidate()], incumbent)
    wins = mean_score(mine) > mean_score(incumbent)
    assert (outcome.score is not None and outcome.score > mean_score(incumbent)) == wins
    assert outcome.at_most >= mean_score(mine)
    assert scorer.asked == outcome.inferences == len(outcome.scores) <= len(rows)
    if outcome.stopped:
        assert outcome.at_most <= mean_score(incumbent)
    else:
        assert outcome.score == mean_score(mine)


def test_a_hopeless_candidate_is_dropped_after_its_first_cases() -> None:
    incumbent = scores_of([(0.9, 0.9)] * 20)
    selection, scorer = selection_of(scores_of([(0.1, 0.1)] * 20))
    (outcome,) = selection.challenge([candidate()], incumbent)
    # Three cases lack 0.9 each: already more than the incumbent lacks in all of them.
    assert (outcome.stopped, scorer.asked) == ("bound", 3)


def test_challenge_keeps_the_incumbent_on_equal_scores() -> None:
    same = scores_of([(0.7, 0.8), (0.4, 0.6)])
    (outcome,) = selection_of(same)[0].challenge([candidate()], same)
    assert outcome.score is None or outcome.score <= mean_score(same)


def test_selection_scores_no_candidate_twice(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "candidates.jsonl"
    scores = scores_of([(0.7, 0.8), (0.4, 0.6), (0.5, 0.5)])
    for expected in (3, 0):
        selection, scorer = selection_of(scores, Cache(path, "context"))
        outcome = selection.score_all(candidate())
        assert outcome.scores == scores
        assert scorer.asked == selection.inferences == expected
    with path.open("a") as stream:
        stream.write('{"context": "context", "candi')
    # Other parts, other weights of the same parts, other data: scored again.
    other_weights = CandidateSoup(
        [WeightedModel(Path("a"), "a", 0.5), WeightedModel(Path("a"), "a", 0.5)], dict
    )
    for what, context in (
        (candidate("b"), "context"),
        (other_weights, "context"),
        (candidate(), "another"),
    ):
        selection, scorer = selection_of(scores, Cache(path, context))
        selection.score_all(what)
        assert scorer.asked == 3


def test_a_killed_soup_resumes_from_its_scores(tmp_path: Path) -> None:
    scores = scores_of([(0.7, 0.8), (0.4, 0.6), (0.5, 0.5)])
    path = tmp_path / "candidates.jsonl"
    selection, _ = selection_of(scores, Cache(path, ""))
    selection.score_all(candidate())
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:2]) + lines[2][:20])
    selection, scorer = selection_of(scores, Cache(path, ""))
    assert selection.score_all(candidate()).scores == scores
    assert scorer.asked == 1


def test_the_race_keeps_to_its_error_rate_and_saves_cases() -> None:
    random = np.random.default_rng(0)
    wrong = raced = saved = 0
    for _ in range(300):
        incumbent = np.clip(random.normal(0.8, 0.1, 40), 0, 1)
        mine = np.clip(incumbent + random.normal(-0.01, 0.02, 40), 0, 1)
        one, other = scores_of([(v, v) for v in mine]), scores_of([(v, v) for v in incumbent])
        selection, scorer = selection_of(one, race=0.05)
        (outcome,) = selection.challenge([candidate()], other)
        wrong += outcome.stopped == "race" and mean_score(one) > mean_score(other)
        raced += outcome.stopped == "race"
        saved += len(incumbent) - scorer.asked
    assert raced > 150
    assert wrong <= 0.05 * 300
    assert saved > 0.3 * 300 * 40


@pytest.mark.parametrize(("shift", "lost"), [(-0.05, True), (0.0, False), (0.05, False)])
def test_the_race_needs_a_difference(shift: float, lost: bool) -> None:
    values = np.linspace(0.5, 0.9, 20)
    wobble = np.tile([-0.01, 0.01], 5)
    incumbent = scores_of([(v, v) for v in values])
    seen = scores_of([(v + shift + w, v + shift + w) for v, w in zip(values, wobble, strict=False)])
    assert loses(seen, incumbent, 0.01) == lost


def partly(scores: Scores, hidden: dict[str, set[str]]) -> Scores:
    return {
        case: {name: v for name, v in score.items() if name not in hidden.get(case, ())}
        for case, score in scores.items()
    }


@given(pairs, st.lists(st.sets(st.sampled_from(REGIONS), max_size=1), min_size=12, max_size=12))
def test_bound_decides_as_all_cases_would_where_regions_are_not_annotated(
    rows: list[tuple[float, ...]], sets: list[set[str]]
) -> None:
    hidden = {f"case{n}": regions for n, regions in enumerate(sets)}
    mine = partly(scores_of([r[:2] for r in rows]), hidden)
    incumbent = partly(scores_of([r[2:] for r in rows]), hidden)
    selection, _ = selection_of(mine)
    (outcome,) = selection.challenge([candidate()], incumbent)
    assert outcome.beats(incumbent) == (mean_score(mine) > mean_score(incumbent))
    assert outcome.stopped is None or outcome.at_most >= mean_score(mine)


def test_the_race_is_run_by_each_cases_part_in_the_mean_over_the_regions() -> None:
    # ET is annotated in few cases, in which the candidate is much better, and a little worse in WT.
    names = [f"case{n}" for n in range(20)]
    hidden = {name: {REGIONS[1]} for name in names[4:]}
    incumbent = partly(scores_of([(0.8, 0.4)] * 20), hidden)
    wobble = np.tile([-0.001, 0.001], 10)
    mine = partly(scores_of([(0.79 + w, 0.7 + w) for w in wobble]), hidden)
    assert mean_score(mine) > mean_score(incumbent)
    assert not loses(mine, incumbent, 0.01)
