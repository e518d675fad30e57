"""Which plug-ins a study uses."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from voxelsoup.common.plug_ins import ONE, PlugIn, code_of, find, is_plug_in
from voxelsoup.study.sections.training import Network
from voxelsoup.study.study import Study
from voxelsoup.study.trials import trials


def losses_of(study: Study) -> list[str]:
    """All losses that a study trains with and reports, each once."""
    trained = (trial.study.training.loss for trial in trials(study))
    return list(dict.fromkeys([study.training.loss, study.evaluation.loss, *trained]))


def layouts_of(study: Study) -> list[str]:
    """The layouts that a study names, each once: of its data set, and of other scans."""
    others = [study.predict.layout, *study.comparison.test_set_layouts.values()]
    return list(dict.fromkeys([study.dataset.layout, *filter(None, others)]))


def plug_ins_of(study: Study) -> list[PlugIn]:
    """All plug-ins of a study; nothing is imported."""
    return [find(kind, name) for kind, name in _names(study) if is_plug_in(kind, name)]


def records_of(*studies: Study) -> list[dict[str, Any]]:
    """All plug-ins of some studies as data (``PlugIn.record``), each once."""
    found = {(one.kind, one.name): one for study in studies for one in plug_ins_of(study)}
    return [plug_in.record() for plug_in in found.values()]


def in_words(study: Study) -> list[str]:
    """What a study uses of other packages, as a paper names it: ``loss focal (acme-tools 1.2)``."""
    return [f"{ONE[one.kind]} {one.name} ({one.package})" for one in plug_ins_of(study)]


def records_of_training(study: Study) -> list[dict[str, Any]]:
    """Those that a run of a study, whose values are in place, is trained with."""
    names = {"networks": study.network.name, "losses": study.training.loss}
    return [find(kind, name).record() for kind, name in names.items() if is_plug_in(kind, name)]


def network_record(network: Network) -> dict[str, Any] | None:
    """The record of a network of another package; None for MONAI's."""
    name = network.name
    return find("networks", name).record() if is_plug_in("networks", name) else None


def code_of_training(network: str, loss: str) -> dict[str, str]:
    """Module -> hash of the plug-ins that a training with this network and loss depends on."""
    return code_of("networks", network) | code_of("losses", loss)


def _names(study: Study) -> Iterator[tuple[str, str]]:
    yield from (("layouts", layout) for layout in layouts_of(study))
    yield "networks", study.network.name
    yield from (("losses", loss) for loss in losses_of(study))
    yield from (("metrics", metric) for metric in study.metrics.names)
    yield from (("recipes", recipe) for recipe in study.soup.averaging_recipes)
