"""`configs/inference.json` of a bundle: from scans to label maps in MONAI's own parts."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from voxelsoup.common.errors import InputError
from voxelsoup.data.case import IndexedCase
from voxelsoup.data.index.checks import MOST_LABELS
from voxelsoup.data.layouts.channel_names import MASKS, says_nothing
from voxelsoup.data.preprocessing.normalise import KEEPS_ZEROS, PERCENTILES
from voxelsoup.data.regions import LabelOrder, check_label_order, label_order
from voxelsoup.data.volumes.nifti import PLACE
from voxelsoup.data.volumes.volume import without_suffix
from voxelsoup.evaluation.score import THRESHOLD
from voxelsoup.models import networks
from voxelsoup.prediction.model_files import Description
from voxelsoup.study.sections.data import Intensities, Normalisation
from voxelsoup.study.sections.evaluation import Evaluation

Config = dict[str, Any]

NIFTI = ".nii.gz"
# Beyond all intensities.
FAR = 3e38
# Folders of label maps in the layouts of the Decathlon and nnU-Net, as words of a path.
LABEL_FOLDERS = ("labelstr", "labelsts")
HASHES = "@_meta_#voxelsoup#sha256"


def channel_files(cases: Sequence[IndexedCase]) -> list[str]:
    """How the names of a case's files end, one per file, in the order of the channels.

    Taken from the study's first case that lacks no channel: of `BraTS-GLI-00005-101-t1n.nii.gz` the
    ending `-t1n.nii.gz`, of `hippocampus_001.nii.gz`, which holds all channels, `.nii.gz`.
    """
    case = _complete(cases)
    names = list(dict.fromkeys(source.file.name for source in case.channels.values()))
    common = os.path.commonprefix(names)  # noqa: RUF071  (of characters, not of folders)
    if all(name.startswith(case.name) for name in names):
        common = case.name
    elif len(names) == 1:
        common = without_suffix(names[0])
    else:
        # Endings begin where a word does: t1n and t1c have more than a name in common.
        common = common[: len(common) - len(common.rpartition("_")[2].rpartition("-")[2])]
    return [name[len(common) :] for name in names]


def _complete(cases: Sequence[IndexedCase]) -> IndexedCase:
    return next((case for case in cases if not case.missing), cases[0])


def components(cases: Sequence[IndexedCase]) -> list[int] | None:
    """Which volumes of a 4D file are the channels; None where each has a file of its own."""
    found = [source.component for source in _complete(cases).channels.values()]
    return None if None in found else [number for number in found if number is not None]


def written_order(
    regions: Mapping[str, Sequence[int]], stated: Mapping[str, int] | None
) -> LabelOrder | None:
    """The label order that the study states, or else the one that follows from the regions.

    None where neither is: regions are then written as masks. Raises InputError if the stated one
    does not fit the regions.
    """
    if stated is not None:
        return check_label_order(stated, regions, "predict.label_order")
    try:
        return label_order(regions)
    except InputError:
        return None


def inference_config(
    description: Description,
    evaluation: Evaluation,
    weights: Sequence[str],
    files: Sequence[str],
    parts: Sequence[int] | None,
    order: LabelOrder | None,
    constants: Sequence[Sequence[Intensities | None]] = (),
) -> Config:
    """The content of ``inference.json``; ``weights``: names of the models' files, of one network.

    ``constants``: of each model, what its channels are normalised by (``Preprocess.constants``).

    ``files``, ``parts`` and ``order`` are from ``channel_files``, ``components`` and
    ``written_order``.
    """
    several = len(weights) > 1
    predictions = [f"pred{number}" for number in range(len(weights))] if several else ["pred"]
    rescaled = rescaled_networks(constants)
    one_file = _is_any_volume(files)
    return {
        "imports": [
            "$import collections",
            "$import copy",
            "$import glob",
            "$import os",
            "$import pathlib",
            "$import re",
            "$import sys",
            "$import nibabel as nib",
            "$from safetensors.torch import load_file",
        ],
        "bundle_root": ".",
        "dataset_dir": "$@bundle_root + '/scans'",
        "output_dir": "$@bundle_root + '/eval'",
        "device": "$torch.device('cuda' if torch.cuda.is_available() else 'cpu')",
        "channel_files": list(files),
        "found": (
            "$sorted(glob.glob(os.path.join(@dataset_dir, '**', '*' + @channel_files[0]), "
            "recursive=True))"
        ),
        **scans_without_label_maps(one_file),
        "datalist": (
            "$[{'image': [first[:-len(@channel_files[0])] + end for end in @channel_files]} "
            "for first in @scans]"
        ),
        **names_of_label_maps(),
        "weights": list(weights),
        "network_def": networks.as_monai_config(
            description.network, len(description.channels), len(description.regions)
        ),
        "networks": "$[copy.deepcopy(@network_def).to(@device).eval() for _ in @weights]",
        # Refuses an existing file whose hash is another one, before anything of it is used.
        "check": (
            "$[monai.apps.download_url('', os.path.join(@bundle_root, name), "
            f"hash_val={HASHES}[name], hash_type='sha256') for name in @weights]"
        ),
        "load": (
            "$[network.load_state_dict(load_file(os.path.join(@bundle_root, "
            "name))) for network, name in zip(@networks, @weights)]"
        ),
        **rescaled,
        "preprocessing": {
            "_target_": "Compose",
            "transforms": _preprocessing(description, parts, one_file),
        },
        "dataset": {"_target_": "Dataset", "data": "@datalist", "transform": "@preprocessing"},
        "dataloader": {
            "_target_": "DataLoader",
            "dataset": "@dataset",
            "batch_size": 1,
            "shuffle": False,
            "num_workers": 0,
        },
        "inferer": {
            "_target_": "SlidingWindowInferer",
            "roi_size": list(description.patch),
            "sw_batch_size": evaluation.window_batch,
            "overlap": evaluation.overlap,
            "mode": "gaussian",
        },
        "postprocessing": {
            "_target_": "Compose",
            "transforms": _postprocessing(description, predictions, order),
        },
        # What places a scan in any program: MONAI itself writes the sform alone.
        "header_fields": list(PLACE),
        "to_place": (
            "$lambda label, scan: ([label.header.__setitem__(field, scan.header[field]) "
            "for field in @header_fields], nib.save(label, label.get_filename()))"
        ),
        "evaluator": _evaluator(predictions, "applied" if rescaled else "networks"),
        "initialize": [*(["$@report"] if one_file else []), "$@each_once", "$@check", "$@load"],
        "run": ["$@evaluator.run()"],
    }


def _is_any_volume(files: Sequence[str]) -> bool:
    """Whether nothing in the name of a case's one file says that it is a scan: `CASE.nii.gz`."""
    end = without_suffix(files[0]).strip("-_")
    return len(files) == 1 and (not end or says_nothing(end))


def scans_without_label_maps(one_file: bool) -> Config:
    """Which of the files ``found`` are scans, as `voxelsoup predict` has it.

    Where any volume may be one, the label maps of others are left out by their names, with those of
    folders: words such as `gt` or `mask`, and all other words those of a scan. What is left out is
    printed (``report``). ``check_content`` refuses what looks like a label map although its name
    does not say so, unless ``refuse_label_maps`` is false; what a ``datalist`` names is a scan.
    """
    if not one_file:
        return {"scans": "$@found"}
    return {
        "mask_words": sorted({*MASKS, *LABEL_FOLDERS}),
        "refuse_label_maps": True,
        "words": (
            "${file: {re.sub('[^a-z0-9]', '', word) for word in re.split(r'[-_. /\\\\]+', "
            "os.path.relpath(file, @dataset_dir)[:-len(@channel_files[0])].lower())} "
            "for file in @found}"
        ),
        "words_of_scans": ("$[words for words in @words.values() if not words & set(@mask_words)]"),
        "left_out": (
            "$[file for file, words in @words.items() if words & set(@mask_words) and "
            "any(words - set(@mask_words) and words - set(@mask_words) <= scan "
            "for scan in @words_of_scans)]"
        ),
        "scans": "$[file for file in @found if file not in set(@left_out)]",
        "report": (
            "$print('left out as label maps of the scans beside them, by their names: ' + "
            "', '.join(@left_out[:3]) + (' and ' + str(len(@left_out) - 3) + ' more' "
            "if len(@left_out) > 3 else '')) if @left_out else None"
        ),
        "check_content": (
            "$lambda image: [sys.exit(f'{file} looks like a label map: it holds a few whole "
            "numbers alone. Move the label maps into another folder, or add --refuse_label_maps "
            "False') if @refuse_label_maps and file in map(os.path.abspath, @scans) and "
            f"all(len(torch.unique(part)) <= {MOST_LABELS} for part in "
            "(image[..., image.shape[-1] // 2], image)) and "
            "bool(((image >= 0) & (image == image.round())).all()) else image "
            "for file in [os.path.abspath(str(image.meta['filename_or_obj']))]][0]"
        ),
    }


def names_of_label_maps() -> Config:
    """A case's first file -> the name of its label map, below the output folder.

    It is the file's name without the channel's ending. Equal names in different folders get
    folders of their own. Two files of one name are refused before anything is predicted.
    """
    return {
        # As MONAI notes them.
        "first_files": (
            "$[str(pathlib.Path(files[0] if isinstance(files, (list, tuple)) else files)"
            ".expanduser()) for files in [case['image'] for case in @datalist]]"
        ),
        "names": (
            "$[(name[:-len(end)] if name.endswith(end) else "
            "re.sub(r'\\.(nii|nii\\.gz|mha|nrrd)$', '', name, flags=re.I)) "
            "or os.path.basename(folder) for end in [@channel_files[0]] "
            "for folder, name in map(os.path.split, map(os.path.abspath, @first_files))]"
        ),
        "folders": (
            "$[os.path.relpath(folder, os.path.commonpath(folders)) for folders in "
            "[[os.path.dirname(os.path.abspath(file)) for file in @first_files]] "
            "for folder in folders]"
        ),
        "outputs": (
            "${file: name if counts[name] == 1 else os.path.normpath(os.path.join(folder, name)) "
            "for counts in [collections.Counter(@names)] "
            "for file, name, folder in zip(@first_files, @names, @folders)}"
        ),
        "each_once": (
            "$[sys.exit(f'{twice[0]} and {twice[1]} would become one label map, {output}: "
            "rename one of them') "
            "for output, twice in [(output, [file for file in @first_files if @outputs[file] == "
            "output]) for output in set(@outputs.values())] if len(twice) > 1]"
        ),
    }


def _preprocessing(
    description: Description, parts: Sequence[int] | None, one_file: bool
) -> list[Config]:
    settings = description.preprocess
    steps = [_step("LoadImaged", "image"), _step("EnsureChannelFirstd", "image")]
    if one_file and parts is None:
        steps.append(_step("Lambdad", "image", func="@check_content", track_meta=True))
    if parts is not None:
        chosen = f"$lambda image: image[{list(parts)}]"
        steps.append(_step("Lambdad", "image", func=chosen, track_meta=True))
    steps.append(_step("Orientationd", "image", axcodes="RAS", labels=None))
    if settings.crop:
        nonzero = "$lambda image: image != 0"
        shape = {"source_key": "image", "select_fn": nonzero, "allow_smaller": True}
        steps.append(_step("CropForegroundd", "image", **shape))
    schemes = [settings.scheme_of(name) for name in description.channels]
    keeps = [scheme in KEEPS_ZEROS for scheme in schemes]
    if settings.spacing is not None:
        transform = "voxelsoup.deploy.bundle.transforms.ResampleToSpacingd"
        how: Config = {
            "spacing": list(settings.spacing),
            "keep_zeros": keeps[0] if len(set(keeps)) == 1 else keeps,
        }
        if settings.thick_slices != "cubic":
            how["thick_slices"] = settings.thick_slices
        steps.append(_step(transform, "image", **how))
    return [*steps, *_normalisation(schemes)]


def _normalisation(schemes: Sequence[Normalisation]) -> list[Config]:
    """The step that normalises the channels, but for ``ct``, which each network does for itself."""
    if set(schemes) <= {"none", "ct"}:
        return []
    if len(set(schemes)) == 1 and schemes[0] in ("zscore", "zscore-nonzero"):
        nonzero = schemes[0] == "zscore-nonzero"
        return [_step("NormalizeIntensityd", "image", nonzero=nonzero, channel_wise=True)]
    if set(schemes) == {"percentile"}:
        low, high = PERCENTILES
        ends = {"lower": low, "upper": high, "b_min": 0.0, "b_max": 1.0}
        step = "ScaleIntensityRangePercentilesd"
        return [_step(step, "image", **ends, clip=True, channel_wise=True)]
    return [_step("voxelsoup.deploy.bundle.transforms.Normalised", "image", schemes=list(schemes))]


def rescaled_networks(constants: Sequence[Sequence[Intensities | None]]) -> Config:
    """Networks that normalise their input by constants of their own; nothing if none has any."""
    if not any(any(own) for own in constants):
        return {}
    # JSON has no infinity: what a channel without constants is clipped at.
    keep = Intensities(lower=-FAR, upper=FAR, mean=0, deviation=1)
    fields = ("lower", "upper", "mean", "deviation")
    rows = [[[getattr(one or keep, name) for one in own] for name in fields] for own in constants]
    return {
        "constants": (
            "$[[torch.tensor(row, dtype=torch.float32, device=@device).reshape(1, -1, 1, 1, 1) "
            f"for row in rows] for rows in {rows}]"
        ),
        "applied": (
            "$[(lambda images, network=network, own=own: network((torch.minimum(torch.maximum("
            "images, own[0]), own[1]) - own[2]) / own[3])) "
            "for network, own in zip(@networks, @constants)]"
        ),
    }


def _step(target: str, keys: str | list[str], **settings: Any) -> Config:
    return {"_target_": target, "keys": keys, **settings}


def _postprocessing(
    description: Description, predictions: Sequence[str], order: LabelOrder | None
) -> list[Config]:
    steps = [_step("Activationsd", list(predictions), sigmoid=True)]
    if len(predictions) > 1:
        steps.append(_step("MeanEnsembled", list(predictions), output_key="pred"))
    inverted = _step(
        "Invertd",
        "pred",
        transform="@preprocessing",
        orig_keys="image",
        nearest_interp=False,
        to_tensor=True,
    )
    labels = to_labels_expression(description.regions, order)
    saved = _step(
        "SaveImaged",
        "pred",
        output_dir="@output_dir",
        output_ext=NIFTI,
        output_postfix="",
        output_dtype="$np.uint8",
        separate_folder=False,
        savepath_in_metadict=True,
        resample=False,
        # With it, folders in names are kept.
        data_root_dir=".",
        # MONAI takes off what looks like a suffix, as the end of a DICOM UID does.
        output_name_formatter=(
            f"$lambda meta, saver: {{'subject': @outputs[meta['filename_or_obj']] + '{NIFTI}', "
            "'idx': None}"
        ),
    )
    placed = (
        "$lambda pred: ([@to_place(nib.load(pred.meta['saved_to']), nib.load(scan)) "
        "for scan in [pred.meta['filename_or_obj']] if '.nii' in scan.lower()[-7:]], pred)[1]"
    )
    to_file = [saved, _step("Lambdad", "pred", func=placed, track_meta=True)]
    return [*steps, inverted, _step("Lambdad", "pred", func=labels, track_meta=True), *to_file]


def to_labels_expression(regions: Collection[str], order: LabelOrder | None) -> str:
    """The function in MONAI's configuration from probabilities (region, x, y, z) to label values
    (1, x, y, z), or to masks without an order.
    """
    if order is None:
        return f"$lambda p: (p > {THRESHOLD}).to(torch.uint8)"
    numbers = list(regions)
    labels = "torch.zeros_like(p[:1])"
    for region, value in order.items():
        number = numbers.index(region)
        labels = f"torch.where(p[{number}:{number + 1}] > {THRESHOLD}, {value}, {labels})"
    return f"$lambda p: {labels}"


def _evaluator(predictions: Sequence[str], networks: str) -> Config:
    shared = {
        "device": "@device",
        "val_data_loader": "@dataloader",
        "inferer": "@inferer",
        "postprocessing": "@postprocessing",
        "amp": False,
    }
    if len(predictions) == 1:
        return {"_target_": "SupervisedEvaluator", "network": f"$@{networks}[0]", **shared}
    return {
        "_target_": "EnsembleEvaluator",
        "networks": f"@{networks}",
        "pred_keys": list(predictions),
        **shared,
    }


def needs_voxelsoup(config: Config) -> bool:
    """Whether a bundle only runs where voxelsoup is installed."""
    parts = [config["network_def"], *config["preprocessing"]["transforms"]]
    return any(str(part["_target_"]).startswith("voxelsoup.") for part in parts)
