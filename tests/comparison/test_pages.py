"""Sections of text, as HTML and as Markdown."""

from __future__ import annotations

from pathlib import Path

from voxelsoup.comparison.pages import write_section


def test_a_section_has_the_same_text_in_html_and_markdown(tmp_path: Path) -> None:
    page, text = tmp_path / "methods.html", tmp_path / "methods.md"
    write_section(page, text, "Methods", {"Data": "3 < 4 [1]."}, ["Efron & B. 1987."])
    assert "<p><strong>Data.</strong> 3 &lt; 4 [1].</p>" in page.read_text()
    assert "<li>Efron &amp; B. 1987.</li>" in page.read_text()
    assert text.read_text() == (
        "# Methods\n\n**Data.** 3 < 4 [1].\n\n## References\n\n1. Efron & B. 1987.\n"
    )
