"""What the report's captions (``workflow/report/*.rst``) can read beside Snakemake's own values."""

from __future__ import annotations

from typing import Any

from voxelsoup.study.study import Study

OPTIMISTIC_NOTE = """

**Optimistic:** under the ``published`` protocol models and soups are chosen and scored on the same
cases, so these numbers are higher than new cases would give.
"""


def caption_values(study: Study) -> dict[str, Any]:
    """Names for the captions: ``study``, with all its defaults, and ``optimistic``.

    ``optimistic`` is the sentence below every table and figure of scores that the protocol makes
    optimistic, and empty for a study with held-out cases.
    """
    published = study.evaluation.protocol == "published"
    return {"study": study, "optimistic": OPTIMISTIC_NOTE if published else ""}
