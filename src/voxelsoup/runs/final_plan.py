"""Which trials the final model is made of, as far as that is known."""

from __future__ import annotations

from pathlib import Path

from voxelsoup.common.files import read_json

PLAN = Path("final", "plan.json")


def trials_of_final(results: Path) -> list[str]:
    """The trials that the folds have chosen for the final model; none before they have."""
    try:
        models = read_json(results / PLAN)["models"]
        return list(dict.fromkeys(str(one["model"]).partition("/")[0] for one in models))
    except (OSError, ValueError, KeyError, TypeError):
        return []
