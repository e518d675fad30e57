"""The table of what all trainings recorded of where they ran."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from voxelsoup.comparison.pages import write_text_table
from voxelsoup.report.provenance import CAPTION, provenance_table


def run(fold: int, torch: str, host: str) -> dict[str, object]:
    return {
        "fold": fold,
        "versions": {"voxelsoup": "0.1.0", "torch": torch},
        "commit": "0123abc",
        "data_fingerprint": f"data of fold {fold}",
        "device": "cpu",
        "machine": {"host": host, "processor": "x86_64"},
    }


def test_provenance_shows_what_all_trainings_recorded(tmp_path: Path) -> None:
    runs = [run(0, "2.12", "one"), run(0, "2.13", "one"), run(1, "2.13", "two")]
    models = pd.DataFrame(
        {"fold": ["0", "0"], "trial": ["stem", "greedy"], "kind": ["stem", "soup"]}
    ).assign(sha256=["aa", "bb"])
    table = provenance_table(runs, models, {"study.yaml": "ff"}, {"voxelsoup": "0.2.0"})
    rows = [tuple(row) for row in table.reset_index().itertuples(index=False)]
    assert rows == [
        ("software", "voxelsoup", "0.1.0"),
        ("software", "torch", "2.12; 2.13"),
        ("software", "commit", "0123abc"),
        ("report", "voxelsoup", "0.2.0"),
        ("file", "study.yaml", "ff"),
        ("data", "fold 0, fingerprint", "data of fold 0"),
        ("data", "fold 1, fingerprint", "data of fold 1"),
        ("machine", "one", "cpu, x86_64: 2 trainings"),
        ("machine", "two", "cpu, x86_64: 1 training"),
        ("model", "fold 0, stem", "aa"),
        ("model", "fold 0, soup greedy", "bb"),
    ]
    write_text_table(table, tmp_path / "provenance", CAPTION)
    assert "data of fold 1" in (tmp_path / "provenance.html").read_text()
    assert (
        (tmp_path / "provenance.csv").read_text().startswith("part,name,value\nsoftware,voxelsoup,")
    )
