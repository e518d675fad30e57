"""Pages of the report, for tables and text."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from voxelsoup.common.files import write_text

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #1a1a1a; margin: 1.5rem; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
caption { text-align: left; padding-bottom: .7rem; max-width: 62rem; }
caption strong { color: #a33c00; }
th, td { padding: .3rem .6rem; text-align: right; border-bottom: 1px solid #d8d8d8; }
td { white-space: nowrap; }
thead th { border-bottom: 2px solid #1a1a1a; vertical-align: bottom; }
thead th:first-child, tbody th { text-align: left; }
tbody th { font-weight: 600; min-width: 8rem; }
p, h1, ol.references { max-width: 46rem; }
p.lead { font-size: 1.3rem; font-weight: 600; line-height: 1.35; }
table.text :is(th, td) { text-align: left; vertical-align: top; }
table.text td { white-space: normal; font-family: ui-monospace, monospace; font-size: .87rem; }
table.answer { margin-top: 1.2rem; }
table.answer caption { font-weight: 600; padding-bottom: .3rem; }
table.facts td { text-align: left; white-space: normal; max-width: 46rem; }
table.facts th { vertical-align: top; }
ol.references { font-size: .87rem; color: #444; }
""".strip()


def page(title: str, content: str, style: str = "") -> str:
    """A page that stands alone."""
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f"<title>{html.escape(title)}</title>\n<style>\n{STYLE}\n{style}\n</style>\n</head>\n"
        f"<body>\n<main>\n{content}\n</main>\n</body>\n</html>\n"
    )


def write_section(
    html_file: Path,
    markdown_file: Path,
    title: str,
    parts: Mapping[str, str],
    references: Sequence[str],
) -> None:
    """Write paragraphs with headings that run into them, and what they cite by numbers from 1."""
    paragraphs = [
        f"<p><strong>{html.escape(heading)}.</strong> {html.escape(text)}</p>"
        for heading, text in parts.items()
    ]
    cited = [f"<li>{html.escape(reference)}</li>" for reference in references]
    content = [f"<h1>{html.escape(title)}</h1>", *paragraphs]
    if cited:
        content += ["<h2>References</h2>", '<ol class="references">', *cited, "</ol>"]
    write_text(html_file, page(title, "\n".join(content)))

    plain = [f"# {title}", *(f"**{heading}.** {text}" for heading, text in parts.items())]
    if references:
        numbered = "\n".join(f"{n}. {reference}" for n, reference in enumerate(references, 1))
        plain += ["## References", numbered]
    write_text(markdown_file, "\n\n".join(plain) + "\n")


def write_text_table(table: pd.DataFrame, stem: Path, caption: str) -> None:
    """Write a table of texts as ``stem``.csv and, set flush left, ``stem``.html.

    What repeats in a level of its index is shown once.
    """
    write_text(stem.with_name(f"{stem.name}.csv"), table.to_csv(lineterminator="\n"))
    shown = table.to_html(border=0, classes="text", justify="unset", index_names=False)
    content = f"<p>{html.escape(caption)}</p>\n{shown}"
    write_text(stem.with_name(f"{stem.name}.html"), page(stem.name, content))
