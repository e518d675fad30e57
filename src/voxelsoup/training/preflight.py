"""What can be known to be wrong before the first job starts; needs no torch."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from voxelsoup.common.code_version import SOURCE, hash_of_code
from voxelsoup.common.errors import InputError
from voxelsoup.common.files import write_json
from voxelsoup.common.plug_ins import code_of, is_plug_in
from voxelsoup.common.provenance import versions
from voxelsoup.common.separate_process import NoAnswer, ask, kept_at
from voxelsoup.data.index.folder_hash import check_root
from voxelsoup.data.index.not_annotated import check_patterns
from voxelsoup.data.layouts import find_cases, reader_of
from voxelsoup.data.regions import check_label_order
from voxelsoup.study.plug_ins import layouts_of, losses_of
from voxelsoup.study.sections.training import Network
from voxelsoup.study.study import Study

# The code that checks networks and losses, beside what `versions` names.
CHECKING = (
    "training/network_check.py", "models/networks.py", "models/mednext.py", "models/losses.py",
    "models/plug_ins.py", "training/data_parallel.py",
)  # fmt: skip


def check_start(study: Study) -> None:
    """Make sure that a study can start: its files, its checkpoint, its network and its patch.

    Raises:
        InputError: with the first thing that is wrong.
    """
    check_root(study.dataset)
    for layout in layouts_of(study):
        reader_of(layout)
    _check_not_annotated(study)
    _check_named_files(study)
    _check_test_sets(study)
    if study.predict.label_order is not None:
        check_label_order(study.predict.label_order, study.regions, "predict.label_order")
    _check_deep_supervision(study.network)
    _check_network(study)


def _check_network(study: Study) -> None:
    """Check network, losses and weights from elsewhere (``network_check``); once what is right."""
    kept = _kept(study)
    if kept is not None and kept.exists():
        return
    try:
        answer = ask(
            "voxelsoup.training.network_check", study.model_dump(mode="json", exclude_unset=True)
        )
    except NoAnswer as error:
        raise InputError(
            "network",
            f"could not be checked: {error}",
            "torch and MONAI, which build it",
            "correct the installation (`voxelsoup doctor`), or report it with the study",
        ) from error
    if answer is not None:
        raise InputError.from_record(answer)
    if kept is not None:
        # Without a place to keep it, it is checked again next time.
        with suppress(InputError, OSError):
            write_json(kept, {"network": study.network.name})


def _kept(study: Study) -> Path | None:
    """What is there once a network was right: named by all that this depends on.

    None: weights from elsewhere are read each time.
    """
    if study.stem.checkpoint is not None or study.ingredients:
        return None
    found = versions()
    losses = [loss for loss in losses_of(study) if is_plug_in("losses", loss)]
    content = study.model_dump(mode="json", include={"network": True, "training": {"patch"}})
    code = [hash_of_code((SOURCE / name).read_text(encoding="utf-8")) for name in CHECKING]
    identity = [
        content,
        len(study.dataset.channels),
        len(study.regions),
        study.resources.training.gpu > 1,
        study.dataset.ignore_label is not None or bool(study.dataset.not_annotated),
        losses,
        code_of("networks", study.network.name) | code_of("losses", *losses),
        code,
        {name: found[name] for name in ("torch", "monai")},
    ]
    return kept_at("networks", identity)


def _check_not_annotated(study: Study) -> None:
    # The phantom may not be generated yet; its index says the same.
    if study.dataset.not_annotated and study.dataset.layout != "phantom":
        cases = find_cases(study.dataset, Path(study.dataset.root or ""))
        names = [case.name for case in cases]
        test_sets = study.comparison.test_sets.values()
        check_patterns(study.dataset.not_annotated, names, test_sets)


def _check_test_sets(study: Study) -> None:
    for name, folder in study.comparison.test_sets.items():
        layout = study.comparison.test_set_layouts.get(name)
        # The layout of another package may be given the file that lists its cases.
        listing = layout is not None and is_plug_in("layouts", layout) and Path(folder).is_file()
        if not Path(folder).is_dir() and not listing:
            raise InputError(
                f"comparison.test_sets.{name}",
                f"there is no folder {folder} (looked for at {Path(folder).absolute()})",
                "the folder of a labelled data set",
                "correct the path; relative paths count from the working directory",
            )


def _check_deep_supervision(network: Network) -> None:
    if network.deep_supervision and network.name != "MedNeXt":
        raise InputError(
            "network.deep_supervision",
            f"is on, and does nothing to {network.name}",
            "`network.name: MedNeXt` where it is on",
            "set `network.arguments: {deep_supervision: true, deep_supr_num: 2}` instead"
            if network.name == "DynUNet"
            else "set it to false",
        )


def _check_named_files(study: Study) -> None:
    """The files beside the scans that a study names, which Snakemake asks for when it plans."""
    named = {
        "dataset.file": study.dataset.file,
        "dataset.patients": study.dataset.patients,
        "folds.file": study.folds.file,
    }
    for key, file in named.items():
        if file is not None and not Path(file).is_file():
            raise InputError(
                key,
                f"there is no file {file} (looked for at {Path(file).absolute()})",
                "a file that is there; relative paths count from the working directory",
                f"correct `{key}` in the study, or leave it out",
            )
