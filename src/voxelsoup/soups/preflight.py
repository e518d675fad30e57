"""What can be known to be wrong with recipes and metrics of other packages before a job starts."""

from __future__ import annotations

from voxelsoup.common.plug_ins import is_plug_in
from voxelsoup.evaluation.own_metrics import check_metric
from voxelsoup.soups.recipes import recipe_of
from voxelsoup.study.study import Study


def check_recipes_and_metrics(study: Study) -> None:
    """Import those of other packages, and try what can be tried without models.

    Raises:
        InputError: with the first thing that is wrong.
    """
    for recipe in study.soup.averaging_recipes:
        if is_plug_in("recipes", recipe):
            recipe_of(recipe)
    for metric in study.metrics.names:
        if is_plug_in("metrics", metric):
            check_metric(metric)
