"""What can be known to be wrong with recipes and metrics of other packages before a job starts."""

from __future__ import annotations

from voxelsoup.common.plug_ins import is_plug_in
from voxelsoup.study.study import Study


def check_recipes_and_metrics(study: Study) -> None:
    """Import those of other packages, and try what can be tried without models.

    Raises:
        InputError: with the first thing that is wrong.
    """
    recipes = [name for name in study.soup.averaging_recipes if is_plug_in("recipes", name)]
    metrics = [name for name in study.metrics.names if is_plug_in("metrics", name)]
    # These take seconds to import.
    if recipes:
        from voxelsoup.soups.recipes import recipe_of

        for recipe in recipes:
            recipe_of(recipe)
    if metrics:
        from voxelsoup.evaluation.own_metrics import check_metric

        for metric in metrics:
            check_metric(metric)
