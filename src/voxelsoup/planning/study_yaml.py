"""A study as YAML that people read and change: sections apart, short lists in one line, reasons."""

from __future__ import annotations

import os
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import yaml

from voxelsoup.common.installation import workflow_folder

MODELINE = "yaml-language-server: $schema="
SCHEMA = Path("schema/study.schema.json")
WIDTH = 100
# A mapping that is shorter than this is written in one line.
SHORT = 70


def study_text(
    study: Mapping[str, Any],
    reasons: Mapping[str, str],
    heading: Sequence[str] = (),
    choices: Mapping[str, Sequence[str]] = MappingProxyType({}),
) -> str:
    """Write a study down, with the reason of a setting (dotted key -> why) above it.

    ``choices``: section -> lines that stand at its end as comments, for the user to uncomment.
    """
    lines = [line for text in heading for line in _comment(text, 0)]
    for section, settings in study.items():
        if isinstance(settings, dict):
            opened = f"{section}:" if settings else f"{section}: {{}}"
            lines += ["", *_comment(reasons.get(section), 0), opened]
            lines += _settings(settings, reasons, (section,))
            lines += [f"  # {line}" for line in choices.get(section, ())]
        else:
            lines += [*_comment(reasons.get(section), 0), f"{section}: {_inline(settings)}"]
    return "\n".join(lines).lstrip("\n") + "\n"


def schema_line(output: Path) -> list[str]:
    """The first line of a study file: where its editor finds the schema; nothing where none is.

    A path relative to the file inside of a checkout, an absolute one elsewhere.
    """
    for root in (Path.cwd(), workflow_folder()):
        schema = (root / SCHEMA).resolve()
        if schema.is_file():
            folder = output.resolve().parent
            inside = folder.is_relative_to(schema.parents[1])
            path = Path(os.path.relpath(schema, folder)) if inside else schema
            return [MODELINE + path.as_posix()]
    return []


def _settings(
    settings: Mapping[str, Any], reasons: Mapping[str, str], parents: tuple[str, ...]
) -> list[str]:
    lines: list[str] = []
    for key, value in settings.items():
        path = (*parents, str(key))
        indent = len(parents)
        lines += _comment(reasons.get(".".join(path)), indent)
        below = any(reason.startswith(".".join(path) + ".") for reason in reasons)
        text = f"{'  ' * indent}{_inline(str(key))}: {_inline(value)}"
        if isinstance(value, dict) and value and (below or len(text) > SHORT):
            lines.append(f"{'  ' * indent}{_inline(str(key))}:")
            lines += _settings(value, reasons, path)
        else:
            lines.append(text)
    return lines


def _comment(text: str | None, indent: int) -> list[str]:
    if not text:
        return []
    begin = "  " * indent + "# "
    if text.startswith(MODELINE):
        return [begin + text]
    text = text[0].upper() + text[1:]
    return [
        line
        for paragraph in text.splitlines()
        for line in textwrap.wrap(
            paragraph,
            WIDTH,
            initial_indent=begin,
            subsequent_indent=begin,
            break_long_words=False,
            break_on_hyphens=False,
        )
    ]


def _inline(value: Any) -> str:
    """A value in one line, quoted where YAML needs it."""
    # In a list, for a lone scalar gets a document end behind it.
    text = yaml.safe_dump(
        [value], default_flow_style=True, width=10**9, sort_keys=False, allow_unicode=True
    )
    return text.strip()[1:-1]
