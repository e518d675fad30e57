"""Options of commands that are given a data set without a study: its layout and its channels."""

from __future__ import annotations

import argparse

from voxelsoup.common.errors import InputError
from voxelsoup.common.plug_ins import is_plug_in

LAYOUT = (
    "layout of the data set: one of docs/data.md, or one of another package by its name or its "
    "dotted path (default: found out, among those of docs/data.md)"
)


def add_layout_options(parser: argparse.ArgumentParser) -> None:
    """The options of a command that looks at a data set."""
    parser.add_argument("--layout", metavar="NAME", help=LAYOUT)
    parser.add_argument(
        "--channels",
        metavar="NAMES",
        help="the channels of its cases, separated by commas; for the layout of another package, "
        "which is asked for them",
    )


def channels_of(asked: argparse.Namespace) -> list[str]:
    """The channels that were named; none for the project's own layouts, which say them.

    Raises:
        InputError: if they are named where nothing reads them.
    """
    if asked.channels is None:
        return []
    if asked.layout is None or not is_plug_in("layouts", asked.layout):
        raise InputError(
            "--channels",
            "is given without a layout of another package",
            "it beside `--layout` and such a layout; all others say what their channels are",
            "leave it out, and change `dataset.channels` in the study",
        )
    return [name.strip() for name in asked.channels.split(",")]
