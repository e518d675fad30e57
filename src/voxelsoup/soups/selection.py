"""Scores of candidate soups on the selection cases: each case at most once, and no more of them
than the decision needs.

A candidate has to beat an incumbent strictly. It is dropped as soon as even a perfect Dice on
all remaining cases could not do that, which decides exactly as seeing them all would. Case
scores are kept by what the candidate is made of, so that a killed or repeated souping evaluates
nothing twice.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from statistics import fmean
from typing import Protocol

from scipy import stats

from voxelsoup.evaluation.case_scores import (
    CaseScore,
    Scores,
    case_mean,
    mean_score,
    region_weights,
    weighted_mean,
)
from voxelsoup.models.weight_files import Weights
from voxelsoup.soups.averaging import WeightedAverage

log = logging.getLogger(__name__)

PERFECT = 1.0
# A variance of fewer differences says little.
FEWEST_RACED = 4


class Scorer(Protocol):
    """Evaluates one set of weights at a time on single cases."""

    def use(self, weights: Weights) -> None:
        """Take these weights from now on."""

    def score(self, case: str) -> CaseScore:
        """Dice per region on one case, and the loss."""


@dataclass(frozen=True)
class CandidateSoup:
    """An average that is to be scored.

    Attributes:
        parts: what it is made of; its scores are kept by this.
        weights: computes it; not called if all scores are known.
    """

    parts: WeightedAverage
    weights: Callable[[], Weights]

    @property
    def key(self) -> str:
        """Hash of the files and their weights, in order."""
        identity = [[part.sha256, part.weight] for part in self.parts]
        return hashlib.sha256(json.dumps(identity).encode()).hexdigest()


@dataclass
class Outcome:
    """What became of a candidate.

    Attributes:
        scores: of the cases that were seen, all of them if it was not stopped.
        score: mean Dice over all selection cases; None if it was stopped.
        at_most: the highest mean Dice that it could still have reached.
        stopped: `bound` or `race`, or None.
        inferences: cases that were evaluated for it now.
    """

    scores: Scores
    score: float | None
    at_most: float
    stopped: str | None = None
    inferences: int = 0

    def beats(self, incumbent: Scores) -> bool:
        """Whether it scores strictly higher than the scores of all cases."""
        return self.score is not None and self.score > mean_score(incumbent)


@dataclass
class Cache:
    """Case scores by candidate, appended to a file as they come.

    Attributes:
        path: the file; None keeps them in memory.
        context: what the scores depend on beside the candidate: data, network, evaluation.
    """

    path: Path | None
    context: str
    _known: dict[str, Scores] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Read what earlier soupings left; lines that a crash cut off are passed over."""
        if self.path is None or not self.path.exists():
            return
        for line in self.path.read_text(encoding="utf-8").splitlines():
            try:
                entry = json.loads(line)
            except ValueError:
                continue
            if entry["context"] == self.context:
                self._known.setdefault(entry["candidate"], {})[entry["case"]] = entry["score"]

    def known(self, key: str) -> Scores:
        """The known case scores of a key."""
        return self._known.setdefault(key, {})

    def keep(self, key: str, case: str, score: CaseScore) -> None:
        """Keep one case score."""
        self.known(key)[case] = score
        if self.path is None:
            return
        entry = {"context": self.context, "candidate": key, "case": case, "score": score}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        # One write to a file opened for appending: two recipes may share it.
        with self.path.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(entry) + "\n")


class Selection:
    """Scores candidates on the selection cases of one fold."""

    def __init__(
        self,
        cases: Sequence[str],
        scorers: Sequence[Scorer],
        cache: Cache,
        race: float | None = None,
    ) -> None:
        """Set up.

        Args:
            scorers: as many candidates are evaluated at once.
            race: error rate of stopping a candidate by a test; None stops none.
        """
        self.cases, self.scorers, self.cache, self.race = list(cases), scorers, cache, race
        self.inferences = 0

    def score_all(self, candidate: CandidateSoup) -> Outcome:
        """The scores of all cases, whatever they are."""
        outcome = self._score(candidate, None, self.scorers[0])
        self.inferences += outcome.inferences
        return outcome

    def challenge(self, candidates: Sequence[CandidateSoup], incumbent: Scores) -> list[Outcome]:
        """Score several candidates at once, each no further than to know whether it wins."""
        with ThreadPoolExecutor(len(candidates)) as pool:
            jobs = zip(candidates, self.scorers, strict=False)
            futures = [pool.submit(self._score, c, incumbent, scorer) for c, scorer in jobs]
            outcomes = [future.result() for future in futures]
        self.inferences += sum(outcome.inferences for outcome in outcomes)
        return outcomes

    def _score(self, candidate: CandidateSoup, incumbent: Scores | None, scorer: Scorer) -> Outcome:
        key, seen = candidate.key, Scores()
        known, ready, inferences = self.cache.known(key), False, 0
        for case in self._order(incumbent):
            if case not in known:
                if not ready:
                    scorer.use(candidate.weights())
                    ready = True
                self.cache.keep(key, case, scorer.score(case))
                inferences += 1
            seen[case] = known[case]
            if incumbent is None or len(seen) == len(self.cases):
                continue
            at_most = self._at_most(seen, incumbent)
            stopped = self._stop(seen, incumbent, at_most)
            if stopped:
                return Outcome(seen, None, at_most, stopped, inferences)
        complete = {case: seen[case] for case in self.cases}
        score = mean_score(complete)
        return Outcome(complete, score, score, None, inferences)

    def _order(self, incumbent: Scores | None) -> list[str]:
        """The cases in the order in which a losing candidate is found out soonest."""
        if incumbent is None:
            return self.cases
        if self.race is not None:
            # The test is right for cases in random order only; any fixed one will do.
            return Random(0).sample(self.cases, len(self.cases))
        # The bound falls by what a case lacks to a perfect score: the worst cases first.
        return sorted(self.cases, key=lambda case: (case_mean(incumbent[case]), case))

    def _stop(self, seen: Scores, incumbent: Scores, at_most: float) -> str | None:
        if at_most <= mean_score(incumbent):
            return "bound"
        if self.race is not None and loses(seen, incumbent, self.race):
            return "race"
        return None

    def _at_most(self, seen: Scores, incumbent: Scores) -> float:
        """The mean Dice if all cases that were not seen were perfect.

        Their annotated regions are those that the ``incumbent`` was scored on.
        """
        # Means are correctly rounded sums, so that this is never below the true score.
        return mean_score(
            {c: seen.get(c) or dict.fromkeys(incumbent[c], PERFECT) for c in self.cases}
        )


def loses(seen: Scores, incumbent: Scores, error_rate: float) -> bool:
    """Whether the cases seen say that a candidate will not win, at a stated error rate.

    The upper confidence limit of the mean difference over all selection cases, from those seen so
    far (Student's t with the correction for a finite population; Cochran, Sampling Techniques,
    1977), with the error rate shared out over all looks (Bonferroni).

    Args:
        seen: the candidate's scores so far, of cases in random order.
        error_rate: of stopping a candidate that would have won.
    """
    count, total = len(seen), len(incumbent)
    if count < min(FEWEST_RACED, total):
        return False
    weights = region_weights(incumbent)
    differences = [
        weighted_mean(score, weights) - weighted_mean(incumbent[case], weights)
        for case, score in seen.items()
    ]
    mean = fmean(differences)
    spread = math.sqrt(sum((d - mean) ** 2 for d in differences) / (count - 1))
    looks = max(1, total - FEWEST_RACED)
    quantile = float(stats.t.ppf(1 - error_rate / looks, count - 1))
    limit = mean + quantile * spread / math.sqrt(count) * math.sqrt(1 - count / total)
    return limit <= 0
