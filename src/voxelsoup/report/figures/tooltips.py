"""What a figure says of the mark that a reader points at: titles inside its SVG, and its page.

A browser shows the ``<title>`` of an SVG element as a tooltip, without any script. It does so where
the SVG is opened by itself or stands inside a page, but not where a page shows it as an image, as
Snakemake's report does with SVG files; hence a page beside each figure.
"""

from __future__ import annotations

import html
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from matplotlib.artist import Artist

SVG, XLINK = "http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"
MARKS = {f"{{{SVG}}}use", f"{{{SVG}}}path"}
# Points. Wider areas than this reach over the neighbours where there are many curves.
REACH, REACH_OF_MANY = 8.0, 4.0
# Of the area around the curve that is pointed at.
AREA = "#E69F00"
PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>{title}</title>
<style>
body {{ margin: 1rem; background: #fff; font: 14px/1.5 system-ui, sans-serif; color: #555; }}
svg {{ display: block; max-width: 100%; height: auto; }}
.mark, .curve, .cell, .area {{ cursor: help; }}
.area:hover {{ stroke-opacity: .3 !important; }}
.curve:hover > .line {{ stroke-width: 3.5 !important; stroke-opacity: 1 !important; }}
.mark:hover {{ filter: drop-shadow(0 0 1.2px #000) drop-shadow(0 0 1.2px #000); }}
.cell:hover {{ stroke: #fff !important; stroke-width: 1.5 !important; }}
</style>
</head>
<body>
{hint}{drawing}
</body>
</html>
"""
HINT = "<p>Point at {what} to read which one it is.</p>\n"


@dataclass(frozen=True)
class _Titles:
    kind: str
    texts: tuple[str, ...]
    reach: float = 0.0


class Tooltips:
    """The texts of a figure's marks, collected while it is drawn and put into its SVG after."""

    def __init__(self) -> None:
        self._titles: dict[str, _Titles] = {}

    def curve(self, artist: Artist, text: str, many: bool = False) -> None:
        """Say ``text`` wherever a reader points near a curve or an outline."""
        self._add(artist, _Titles("curve", (text,), REACH_OF_MANY if many else REACH))

    def marks(self, artist: Artist, texts: Sequence[str]) -> None:
        """Say one text for each point of a scatter, or each line of a collection, in their order.

        Marks with coordinates that are not finite are not drawn: leave them out beforehand.
        """
        self._add(artist, _Titles("mark", tuple(texts)))

    def cells(self, artist: Artist, texts: Sequence[str]) -> None:
        """Say one text for each cell of a transparent mesh, row by row."""
        self._add(artist, _Titles("cell", tuple(texts)))

    def _add(self, artist: Artist, titles: _Titles) -> None:
        if titles.texts:
            identifier = f"{titles.kind}-{len(self._titles) + 1}"
            artist.set_gid(identifier)
            self._titles[identifier] = titles

    def put_into(self, path: Path) -> None:
        """Give the marks of an SVG file their titles.

        Raises:
            ValueError: if the file does not have as many marks as there are texts, so that texts
                would stand at the wrong marks.
        """
        # The comments hold the text that matplotlib draws as outlines of letters.
        keeping = ElementTree.TreeBuilder(insert_comments=True)
        parser = ElementTree.XMLParser(target=keeping)
        ElementTree.register_namespace("", SVG)
        ElementTree.register_namespace("xlink", XLINK)
        tree = ElementTree.parse(path, parser)
        for parent in list(tree.getroot().iter(f"{{{SVG}}}g")):
            self._name_children(parent)
        tree.write(path, encoding="utf-8", xml_declaration=True)

    def _name_children(self, parent: ElementTree.Element) -> None:
        areas: list[ElementTree.Element] = []
        first = 0
        for position, group in enumerate(parent):
            titles = self._titles.get(group.get("id", ""))
            if titles is None:
                continue
            if titles.kind != "curve":
                _name_marks(group, titles)
                continue
            first = first if areas else position
            areas.extend(_name_curve(group, titles))
        # Below all curves of the panel, so that none lies under the area of its neighbour.
        for area in reversed(areas):
            parent.insert(first, area)

    def page(self, drawing: str, title: str) -> str:
        """A page of its own that holds an SVG drawing; it refers to nothing outside itself."""
        kinds = {titles.kind for titles in self._titles.values()}
        words = {"curve": "a line", "mark": "a mark", "cell": "a square"}
        what = " or ".join(words[kind] for kind in words if kind in kinds)
        inline = re.sub(r"<\?xml.*?\?>\s*", "", drawing, count=1)
        hint = HINT.format(what=what) if kinds else ""
        return PAGE.format(title=html.escape(title), hint=hint, drawing=inline)


def _name_marks(group: ElementTree.Element, titles: _Titles) -> None:
    defined = {mark for defs in group.iter(f"{{{SVG}}}defs") for mark in defs.iter()}
    marks = [mark for mark in group.iter() if mark.tag in MARKS and mark not in defined]
    if len(marks) != len(titles.texts):
        raise ValueError(f"{group.get('id')}: {len(marks)} marks, {len(titles.texts)} texts")
    for mark, text in zip(marks, titles.texts, strict=True):
        mark.set("class", titles.kind)
        # What has no colour inside, as a ring or a cell, would not notice the pointer there.
        mark.set("pointer-events", "all")
        mark.append(_title(text))


def _name_curve(group: ElementTree.Element, titles: _Titles) -> list[ElementTree.Element]:
    """Name a curve, and return the area around it in which the same is said."""
    group.set("class", titles.kind)
    group.insert(0, _title(titles.texts[0]))
    lines = group.findall(f"{{{SVG}}}path")
    if not lines:
        return []
    # A thin line is hard to point at: the area is the same line, wide and invisible. The colours
    # move to an element around the line, so that its double can have others.
    line = lines[-1]
    style = {"class": "line", "style": line.attrib.pop("style", "")}
    around = ElementTree.Element(f"{{{SVG}}}g", style)
    group.insert(list(group).index(line), around)
    group.remove(line)
    around.append(line)
    line.set("id", f"{group.get('id')}-line")
    wide = f"fill: none; stroke: {AREA}; stroke-opacity: 0; stroke-width: {titles.reach:g}"
    double = {f"{{{XLINK}}}href": f"#{line.get('id')}", "class": "area", "style": wide}
    area = ElementTree.Element(f"{{{SVG}}}use", double | {"pointer-events": "stroke"})
    area.append(_title(titles.texts[0]))
    return [area]


def _title(text: str) -> ElementTree.Element:
    title = ElementTree.Element(f"{{{SVG}}}title")
    title.text = text
    return title
