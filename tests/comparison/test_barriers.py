"""Tables and sentences of the barriers of all folds, against the records that they are made of."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from rich.console import Console

from support.loss_landscape import CASES, MODELS, line_of, record_of, write
from voxelsoup.common.files import write_json
from voxelsoup.comparison import barriers as tables
from voxelsoup.comparison.barriers import why_one
from voxelsoup.comparison.terminal import print_barriers
from voxelsoup.soups import barriers
from voxelsoup.soups.barriers import sentence


def test_sentence_explains_why_greedy_kept_one_model() -> None:
    assert "no other" in why_one([], 0.9, True)
    basins = why_one([line_of(barrier=0.1), line_of("c", barrier=0.2)], 0.9, True)
    assert "a barrier separates it from the 2 others" in basins
    # Nothing is gained by averaging averages; models in other basins do not count.
    flat = [line_of(score=0.9, gain=0.0004), line_of("c", barrier=0.3, gain=-0.3)]
    assert "gains nothing for any pair (+0.0004" in why_one(flat, 0.9, False)
    assert "[raw]" in why_one(flat, 0.9, True)
    assert "[raw]" not in why_one(flat, 0.9, False)
    # The gain of 0.004 is less than half of the gap of 0.02.
    ahead = why_one([line_of("b", 0.88, gain=0.004), line_of("c", 0.8, gain=0.005)], 0.9, True)
    assert "with b raises their mean Dice by 0.0040" in ahead
    assert "is 0.0200 above that model, and so 0.0100 above their mean" in ahead
    few = why_one([line_of("b", 0.896, gain=0.004)], 0.9, True)
    assert "does not hold on all selection cases" in few
    labelled = why_one(
        [line_of("t1/raw", 0.896, gain=0.004)], 0.9, True, {"t1/raw": "lr 0.03, raw"}
    )
    assert "with lr 0.03, raw raises" in labelled


def test_barrier_tables_agree_with_the_record(tmp_path: Path) -> None:
    ingredients = write(tmp_path, MODELS)
    record = record_of(ingredients, CASES[:4])
    assert record["models"] == [i.trial for i in ingredients]
    assert record["best"] == "trial0"
    assert record["case_inferences"] == 2 * 3 * 4
    assert record["sentence"] == sentence(barriers.lines_of(record), "train")
    for written, line in zip(record["lines"], barriers.lines_of(record), strict=True):
        assert (written["barrier"], written["gain"]) == (line.barrier, line.gain)
    folder = tmp_path / "results"
    write_json(folder / "fold0/basin.json", record)
    write_json(folder / "fold0/soups/greedy/recipe.json", {"ingredients": [{}]})
    (read,) = tables.read_barriers(folder, [0], ["greedy"])
    assert "1 of 2" in read.sentence
    assert "Greedy kept the best model alone" in read.sentence
    assert "Greedy" not in tables.read_barriers(folder, [0], ["uniform"])[0].sentence

    frame = tables.table([read])
    assert frame["model"].tolist() == record["models"]
    assert frame["distance"].tolist() == record["distances"][0]
    assert frame["barrier"].tolist()[1:] == [line["barrier"] for line in record["lines"]]
    assert frame["selection_score"].tolist() == [i.score for i in ingredients]
    tables.write_barriers([read], folder / "basin")
    page = (folder / "basin.html").read_text()
    assert "Greedy kept the best model alone" in page
    assert "optimistic" not in page
    labelled = dataclasses.replace(read, labels={"trial0": "lr 0.03, seed 1"})
    tables.write_barriers([labelled], folder / "labelled")
    assert "lr 0.03, seed 1 (trial0)" in (folder / "labelled.md").read_text()
    assert tables.table([labelled]).equals(frame)
    published = dataclasses.replace(read, record=record | {"protocol": "published"})
    tables.write_barriers([published], folder / "published")
    assert "Optimistic" in (folder / "published.html").read_text()
    console = Console(width=80, record=True)
    print_barriers([read], console)
    assert "Fold 0: These models are not linearly mode-connected" in console.export_text()


def test_barriers_of_a_single_model_are_recorded_and_written(tmp_path: Path) -> None:
    record = record_of(write(tmp_path, MODELS[:1]), CASES)
    assert (record["lines"], record["distances"]) == ([], [[0.0]])
    one = tables.FoldBarriers(record, greedy=1)
    assert one.sentence == "Fold 0: There is one model only: nothing to average."
    tables.write_barriers([one], tmp_path / "one")
    assert "trial0" in (tmp_path / "one.md").read_text()
