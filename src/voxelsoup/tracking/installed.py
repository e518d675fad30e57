"""Whether the package of a study's tracker is there, found out without importing it."""

from __future__ import annotations

import importlib.util

from voxelsoup.common.errors import InputError
from voxelsoup.study.sections.tracking import Tracking

# What the files in the results folder take beside the tool itself: `mlflow-skinny` is an `mlflow`
# that knows no SQLite and has no pages to look at.
OFFLINE = {"mlflow": ("sqlalchemy", "alembic", "flask")}


def check_installed(tracking: Tracking, where: str) -> None:
    """Make sure that a study's tracker can be written to.

    Raises:
        InputError: if its package is missing.
    """
    if tracking.tool == "none":
        return
    needed = [tracking.tool, *(OFFLINE.get(tracking.tool, ()) if tracking.address is None else ())]
    missing = [package for package in needed if not _is_installed(package)]
    if missing:
        raise InputError(
            where,
            f"`tracking: {tracking.tool}` needs the package {missing[0]}, which is not installed",
            f"{tracking.tool} beside voxelsoup",
            f"pip install 'voxelsoup[{tracking.tool}]' (in a checkout: "
            f"pip install '.[{tracking.tool}]'), or set `tracking: none`",
        )


def _is_installed(package: str) -> bool:
    spec = importlib.util.find_spec(package)
    # A folder `wandb` of offline runs in the working directory is no package.
    return spec is not None and spec.origin is not None
