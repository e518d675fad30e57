"""What `voxelsoup check` and `voxelsoup init` know of GPUs and their memory."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from voxelsoup.common.graphics_cards import Card, local_cards, smallest
from voxelsoup.planning.card_fit import fit, fit_here, refuse
from voxelsoup.planning.training_memory import CannotCount
from voxelsoup.study.study import Study
from voxelsoup.study.trials import Trial


def report_gpu_memory(study: Study, trials: Sequence[Trial], profile: Path | None) -> None:
    """Print what the largest training of a study needs, and whether its GPU has it.

    The GPU is the one that jobs get with a cluster's profile, or this machine's. Studies that ask
    for none, on a machine without one, train on CPUs: nothing is said.

    Raises:
        InputError: if it needs far more than there is, or the network cannot be built.
    """
    try:
        if profile is not None:
            # Importing Snakemake's Slurm plugin asks the cluster for its settings.
            from voxelsoup.cluster.gpu_memory import fit_on_site
            from voxelsoup.cluster.profile import read_site

            found = fit_on_site(study, trials, read_site(profile))
        else:
            found = fit_here(study, trials)
            if found is None and study.resources.training.gpu and study.training.device != "cpu":
                found = fit(study, trials, None)
    except CannotCount as error:
        print(f"note: {error}")
        return
    if found is not None:
        print(found)
    for note in refuse(found):
        print(f"note: {note}")


def card_to_plan_for(profile: Path | None) -> Card | None:
    """The smallest card of a profile's GPU partitions, or of this machine; None: CPUs alone.

    On a cluster whose profile is not named it is a card of which nothing is known.

    Raises:
        InputError: if the profile cannot be read.
    """
    if profile is not None:
        # Importing Snakemake's Slurm plugin asks the cluster for its settings.
        from voxelsoup.cluster.gpu_memory import cards_of_site
        from voxelsoup.cluster.profile import read_site

        cards = cards_of_site(read_site(profile))
        return smallest(cards) or next(iter(cards), None)
    if cards := local_cards():
        return smallest(cards)
    unknown = Card("a GPU", None, "of this cluster; `--profile` says which it has")
    return unknown if shutil.which("sbatch") else None
