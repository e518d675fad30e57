"""The methods of a study as a paper tells them, written from the study itself."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from voxelsoup.common.text import counted, counted_range, listed, magnitude, percent, times
from voxelsoup.report.methods.references import Citations
from voxelsoup.report.methods.trials import OPTIMIZERS, setting_name, shown_value, sweep_sentence
from voxelsoup.study.ingredients import ingredients_of
from voxelsoup.study.sections.training import Optimizer
from voxelsoup.study.study import Study
from voxelsoup.study.trials import Trial, group_keys, swept_keys
from voxelsoup.study.trials import trials as trials_of
from voxelsoup.training.run import stem_optimizer

LAYOUTS = {
    "phantom": "computer-generated phantoms",
    "decathlon": "stored in the layout of the Medical Segmentation Decathlon",
    "brats": "stored in the layout of the BraTS challenge",
    "nnunet": "stored in the layout of nnU-Net",
    "monai": "listed in a MONAI datalist",
    "table": "listed in a table of files",
}
NORMALISATIONS = {
    "zscore-nonzero": "each channel was normalised to zero mean and unit variance over its "
    "non-zero voxels",
    "zscore": "each channel was normalised to zero mean and unit variance",
}


AUGMENTATIONS = {
    "flips-intensity": ["mirroring", "random scaling and shifting of intensities"],
    "affine-contrast": [
        "mirroring",
        "rotation",
        "scaling",
        "changes of intensity, contrast and gamma",
    ],
    "full": [
        "mirroring",
        "rotation",
        "scaling",
        "changes of intensity, contrast and gamma",
        "noise",
        "blurring",
        "simulated low resolution",
    ],
}
LOSSES = {
    "dice": "Dice loss",
    "dice-bce": "sum of Dice loss and binary cross-entropy",
    "dice-focal": "sum of Dice loss and focal loss",
}
DEEP_SUPERVISION = {
    "same": "weighted equally",
    "exp": "their weights halved with each coarser stage",
    "two": "weighted 1 at full size and 0.5 otherwise",
}
PACKAGES = {"torch": "PyTorch", "monai": "MONAI", "schedulefree": "schedulefree"}


@dataclass(frozen=True)
class FoldSize:
    """Cases of one fold."""

    training: int
    selection: int
    test: int


@dataclass(frozen=True)
class StudyFacts:
    """What the study alone does not say.

    Attributes:
        cases: usable cases of the data set.
        patients: patients that they show.
        folds: number of the fold -> how many cases it has of each kind.
        parameter_count: trained weights of the network.
        devices: what the models were trained on, without repetition.
        commits: git commits of voxelsoup that the models were trained with.
        metrics: what test cases are measured by beside Dice: ``names``, ``surface_tolerance`` (mm),
            ``lesion_dilation`` (voxels) and ``lesion_smallest`` (mm³).
        postprocessing: what is tried on predictions: ``thresholds``, ``smallest_components`` (mm³)
            and ``replace`` (None, or ``region``, ``by`` and ``below`` in mm³).
        statistics: whether differences were tested.
    """

    cases: int
    patients: int
    folds: Mapping[int, FoldSize]
    parameter_count: int | None = None
    devices: Sequence[str] = ()
    commits: Sequence[str] = ()
    metrics: Mapping[str, Any] | None = None
    postprocessing: Mapping[str, Any] | None = None
    statistics: bool = False


@dataclass(frozen=True)
class Methods:
    """A methods section.

    Attributes:
        parts: heading -> text, in their order.
        references: the papers that the texts cite by their numbers, from 1.
    """

    parts: dict[str, str]
    references: list[str] = field(default_factory=list)

    @property
    def paragraph(self) -> str:
        """All of it as one paragraph."""
        return " ".join(self.parts.values())


def methods(study: Study, versions: Mapping[str, str], facts: StudyFacts) -> Methods:
    """Tell how a study was done, for a paper.

    Args:
        study: the study.
        versions: package -> version, as ``provenance.versions`` gives them.
        facts: what the study alone does not say.
    """
    cite, trials = Citations(), trials_of(study)
    swept = swept_keys(trials)
    parts: dict[str, list[str | None]] = {
        "Data": [
            _cases(study, facts),
            _regions(study),
            _preprocessing(study),
            _folds(study, facts),
        ],
        "Network and training": [
            _network(study, facts, cite),
            _patches(study, swept),
            _loss(study, swept),
            _augmentation(study, swept, cite),
            _optimization(study, swept, cite),
            _branching(study, swept, cite),
            sweep_sentence(study, trials, len(facts.folds), cite),
        ],
        "Model averaging": [_ingredients(study, trials), *_recipes(study, trials, cite)],
        "Evaluation": [
            _inference(study, cite),
            _postprocessing(facts, cite),
            _protocol(study),
            _metrics(facts, cite),
            _statistics(facts, cite),
        ],
        "Software": [_software(versions, facts, cite)],
    }
    texts = {heading: " ".join(filter(None, sentences)) for heading, sentences in parts.items()}
    return Methods(texts, cite.references)


def _cases(study: Study, facts: StudyFacts) -> str:
    cases = counted(facts.cases, "case")
    if facts.patients == facts.cases:
        source = f"{cases} of {'one patient' if facts.cases == 1 else 'as many patients'}"
    else:
        source = f"{cases} of {counted(facts.patients, 'patient')}"
    if study.dataset.layout == "phantom":
        source = cases
    channels = study.dataset.channels
    return (
        f"The data set comprised {source}, {LAYOUTS[study.dataset.layout]}, with "
        f"{counted(len(channels), 'input channel')} ({listed(channels)})."
    )


def _regions(study: Study) -> str:
    named = [
        f"{region} (label{'s' if len(labels) > 1 else ''} {listed(labels)})"
        for region, labels in study.regions.items()
    ]
    if len(named) == 1:
        return f"The segmentation target was {named[0]}."
    labels = [label for labels in study.regions.values() for label in labels]
    overlapping = "overlapping " if len(set(labels)) < len(labels) else ""
    return f"The segmentation targets were {len(named)} {overlapping}regions: {listed(named)}."


def _preprocessing(study: Study) -> str:
    settings = study.preprocess
    steps = ["oriented to RAS"]
    if settings.crop:
        steps.append("cropped to the bounding box of their non-zero voxels")
    if settings.spacing is not None:
        steps.append(f"resampled to {times(settings.spacing)} mm")
    sentence = f"Volumes were {listed(steps)}"
    if settings.normalisation in NORMALISATIONS:
        sentence += f"; {NORMALISATIONS[settings.normalisation]}"
    return sentence + "."


def _folds(study: Study, facts: StudyFacts) -> str:
    sizes = list(facts.folds.values())
    training = counted_range([size.training for size in sizes], "case")
    selection = counted_range([size.selection for size in sizes], "case")
    test = counted_range([size.test for size in sizes], "case")
    where = f"Fold {next(iter(facts.folds))}" if len(sizes) == 1 else "Each fold"
    if study.evaluation.protocol == "published":
        parts = f"{training} for training and {test} for both model selection and scoring"
    else:
        parts = f"{training} for training, {selection} for model selection and {test} for testing"
    return f"{_split(study, sorted(facts.folds))} {where} had {parts}."


def _split(study: Study, numbers: Sequence[int]) -> str:
    folds = study.folds
    used = f"{'fold' if len(numbers) == 1 else 'folds'} {listed(numbers)}"
    if folds.file is not None:
        return f"A predefined cross-validation split by patient was used ({used})."
    split = f"Cases were split at random by patient into {folds.count} folds (seed {folds.seed})"
    if len(numbers) == folds.count:
        return f"{split} for cross-validation."
    return f"{split}, of which {used} {'was' if len(numbers) == 1 else 'were'} used."


def _network(study: Study, facts: StudyFacts, cite: Citations) -> str:
    network = study.network
    is_mednext = network.name == "MedNeXt"
    name = f"MedNeXt {cite('mednext')}" if is_mednext else network.name
    traits = []
    if is_mednext:
        traits += [f"size {network.size}"] if network.size != "free" else []
        traits += [f"{times(3 * [network.kernel_size])} kernels"]
    traits += [f"{key} = {shown_value(value)}" for key, value in network.arguments.items()]
    if facts.parameter_count is not None:
        traits.append(f"{magnitude(facts.parameter_count)} parameters")
    described = f" ({', '.join(traits)})" if traits else ""
    return (
        f"The network was {name}{described} in the implementation of MONAI {cite('monai')}, with "
        f"one sigmoid output per region."
    )


def _patches(study: Study, swept: Collection[str]) -> str:
    training = study.training
    sentence = f"It was trained on patches of {times(training.patch)} voxels"
    if "training.foreground_share" not in swept and training.foreground_share > 0:
        sentence += f", {percent(training.foreground_share)} of them centred on a labelled voxel"
    if "training.batch_size" not in swept:
        sentence += f", with a batch size of {training.batch_size}"
    if "training.precision" not in swept:
        sentence += {
            "float32": ", in single precision",
            "auto": ", in mixed precision where the GPU has it",
        }.get(training.precision, f", in mixed precision ({training.precision})")
    return sentence + "."


def _loss(study: Study, swept: Collection[str]) -> str:
    training = study.training
    if "training.loss" in swept:
        sentence = ""
    else:
        sentence = f"The loss was the {LOSSES[training.loss]}"
        if "training.loss_over" not in swept:
            over = "batch" if training.loss_over == "batch" else "sample"
            sentence += f", with Dice computed per {over}"
        sentence += "."
    if study.network.deep_supervision:
        deep = "Deep supervision added the losses of the coarser outputs"
        if "training.deep_supervision_weights" not in swept:
            deep += f", {DEEP_SUPERVISION[training.deep_supervision_weights]}"
        sentence = f"{sentence} {deep}.".strip()
    return sentence


def _augmentation(study: Study, swept: Collection[str], cite: Citations) -> str:
    preset = study.training.augmentation
    if "training.augmentation" in swept or preset not in AUGMENTATIONS:
        return ""
    parts = listed(AUGMENTATIONS[preset])
    # The intensities of the plain preset are not nnU-Net's.
    after = "" if preset == "flips-intensity" else f", after nnU-Net {cite('nnunet')}"
    return f"Patches were augmented by {parts}{after}."


def _optimization(study: Study, swept: Collection[str], cite: Citations) -> str:
    sentence = f"The optimizer was {_optimizer(study.optimizer, swept, cite)}"
    clip = study.training.gradient_clip
    if clip is not None and "training.gradient_clip" not in swept:
        sentence += f"; gradients were clipped to a norm of {clip:g}"
    return sentence + "."


def _optimizer(optimizer: Optimizer, swept: Collection[str], cite: Citations) -> str:
    """An optimizer with its settings, without those that trials differ in."""
    fixed = {key for key in Optimizer.model_fields if f"optimizer.{key}" not in swept}
    settings = [
        f"learning rate {optimizer.lr:g}" * ("lr" in fixed),
        f"momentum {optimizer.momentum:g}" * (optimizer.name == "sgd" and "momentum" in fixed),
        f"β = ({optimizer.momentum:g}, {optimizer.second_beta:g})"
        * (optimizer.name != "sgd" and {"momentum", "second_beta"} <= fixed),
        f"weight decay {optimizer.weight_decay:g}" * ("weight_decay" in fixed),
    ]
    described = f" ({', '.join(filter(None, settings))})" if any(settings) else ""
    name = OPTIMIZERS[optimizer.name] if "name" in fixed else "varied between trials"
    if "name" in fixed and optimizer.name in ("adamw", "radam"):
        name += f" {cite(optimizer.name)}"
    schedule = _schedule(optimizer, fixed, cite) if "schedule" in fixed else ""
    return name + schedule + described


def _schedule(optimizer: Optimizer, fixed: set[str], cite: Citations) -> str:
    name = optimizer.schedule
    warmup = ""
    if optimizer.warmup_steps and "warmup_steps" in fixed:
        warmup = f" and {counted(optimizer.warmup_steps, 'step')} of linear warm-up"
    if name == "schedule-free":
        # RAdam takes no warm-up there.
        warmup = "" if optimizer.name == "radam" else warmup
        return f" in its schedule-free form {cite('schedule-free')}" + warmup.replace(
            " and", " with"
        )
    if name == "multi-step":
        shares = listed(percent(share) for share in optimizer.milestones)
        return f", its rate multiplied by {optimizer.gamma:g} after {shares} of the run"
    phrase = {
        "constant": "a constant rate",
        "cosine": "cosine annealing",
        "cosine-warmup": f"cosine annealing{warmup}",
        "cosine-warmup-restarts": f"cosine annealing with warm restarts "
        f"({counted(optimizer.restarts, 'period')}){warmup}",
        "polynomial": f"polynomial decay (power {optimizer.power:g})",
    }
    return f" with {phrase[name]}"


def _branching(study: Study, swept: Collection[str], cite: Citations) -> str:
    training, stem = study.training, study.stem
    length = ""
    if "training.epochs" not in swept and "training.steps_per_epoch" not in swept:
        steps = counted(training.steps_per_epoch, "step")
        length = f" for {counted(training.epochs, 'epoch')} of {steps}"
    if stem.source == "checkpoint":
        return f"Every trial fine-tuned the same given weights{length}."
    if stem.source == "none":
        return f"Every trial was trained from random initial weights{length}."
    own = ""
    if stem_optimizer(study) != study.optimizer or any(
        key.startswith("optimizer.") for key in swept
    ):
        own = f" with {_optimizer(stem_optimizer(study), (), cite)}"
    stem_length = f"{counted(stem.epochs, 'epoch')} of {counted(training.steps_per_epoch, 'step')}"
    return (
        f"In each fold a shared stem was trained from random initial weights for "
        f"{stem_length}{own}; every trial branched from it and was trained further{length}."
    )


def _ingredients(study: Study, trials: Sequence[Trial]) -> str:
    count = sum(len(ingredients_of(trial)) for trial in trials)
    candidates = counted(count, "candidate model")
    checkpoints = study.training.checkpoints
    kept = []
    if checkpoints > 1:
        kept.append(f"{checkpoints} equally spaced checkpoints of each trial")
    if set(study.soup.weights) == {"averaged", "raw"}:
        kept.append("of schedule-free runs both the averaged and the raw weights")
    elif study.soup.weights == ["raw"]:
        kept.append("of schedule-free runs the raw weights")
    if not kept:
        return f"The final weights of the trials gave {candidates} per fold."
    return f"With {listed(kept)}, the trials gave {candidates} per fold."


def _recipes(study: Study, trials: Sequence[Trial], cite: Citations) -> list[str]:
    soup, sentences = study.soup, []
    for recipe in soup.recipes:
        if recipe == "greedy":
            sentences.append(
                f"The greedy soup {cite('soups')} visited the candidates from the highest "
                "selection Dice to the lowest and kept each whose inclusion strictly improved the "
                "selection Dice of the averaged weights."
            )
        elif recipe == "uniform":
            sentences.append(
                f"The uniform soup {cite('soups')} averaged the weights of all candidates."
            )
        elif recipe == "hierarchical":
            sentences.append(_hierarchical(group_keys(study, trials), cite))
        elif recipe == "learned":
            sentences.append(_learned(study, cite))
        elif recipe == "ensemble":
            of_all = soup.ensemble_of == "all"
            members = "all candidates" if of_all else f"the members of the {soup.ensemble_of} soup"
            sentences.append(
                f"For reference, an ensemble averaged the predicted probabilities of {members}, "
                "each of which was run on every case."
            )
    if soup.race is not None:
        sentences.append(
            "The evaluation of a candidate average was ended early where a paired sequential test "
            f"rejected an improvement (error rate {soup.race:g})."
        )
    return sentences


def _hierarchical(keys: Sequence[str], cite: Citations) -> str:
    name = f"The hierarchical soup {cite('hierarchical')} was built greedily"
    if not keys:
        return f"{name} from all candidates."
    groups = listed(setting_name(key) for key in keys)
    return (
        f"{name} within groups of trials that agreed in {groups} and then across the resulting "
        "soups."
    )


def _learned(study: Study, cite: Citations) -> str:
    learned = study.soup.learned
    each = "block of the network" if learned.per == "block" else "model"
    return (
        f"The learned soup {cite('soups')} had one mixing weight per ingredient and {each}, found "
        f"by {counted(learned.steps, 'step')} of Adam (learning rate {learned.lr:g}) on the "
        "selection cases, and was adopted only where it improved on the best single model on "
        "selection cases that were left out of its fitting."
    )


def _inference(study: Study, cite: Citations) -> str:
    window, overlap = times(study.training.patch), percent(study.evaluation.overlap)
    return (
        f"Whole volumes were segmented with a sliding window of {window} voxels, an overlap of "
        f"{overlap} and Gaussian weighting {cite('nnunet')}; "
        "probabilities were mapped back to the voxels of the original scan and thresholded at 0.5."
    )


def _protocol(study: Study) -> str:
    others = [
        f"the {recipe}{' soup' * (recipe != 'ensemble')}"
        for recipe in study.soup.recipes
        if recipe != "best"
    ]
    if study.evaluation.protocol == "published":
        return (
            "Models were chosen and scored on the same held-out cases, so that all reported scores "
            "are optimistic. The best single model of a fold was the candidate with the highest "
            "mean Dice on these cases."
        )
    scored = f"{listed(['it', *others])} {'were' if others else 'was'}"
    return (
        "The best single model of a fold was the candidate with the highest mean Dice on the "
        f"selection cases; {scored} scored once on the fold's test cases, which played no "
        "part in training or selection."
    )


def _postprocessing(facts: StudyFacts, cite: Citations) -> str:
    """Nothing where there is nothing to choose from."""
    if facts.postprocessing is None:
        return ""
    asked = facts.postprocessing
    thresholds = sorted({*asked["thresholds"], 0.5})
    volumes = sorted({*asked["smallest_components"], 0.0})
    chosen = []
    if len(thresholds) > 1:
        chosen.append(
            f"the threshold of each region ({listed(map(shown_value, thresholds), 'or')})"
        )
    if len(volumes) > 1:
        shown = listed(map(shown_value, volumes), "or")
        chosen.append(f"the volume below which its connected components were removed ({shown} mm³)")
    replace = asked["replace"]
    if replace is not None:
        shown = listed(map(shown_value, replace["below"]), "or")
        chosen.append(
            f"whether {replace['region']} was replaced by {replace['by']} where less than a volume "
            f"({shown} mm³) of it was left {cite('replacement')}"
        )
    if not chosen:
        return ""
    return (
        "Post-processing was chosen once per fold, the same for all models, by the mean Dice on "
        f"the selection cases: {listed(chosen)}. Scores are those without it unless stated "
        "otherwise."
    )


def _metrics(facts: StudyFacts, cite: Citations) -> str:
    sentence = (
        "The primary metric was the Dice coefficient of each region, averaged over the cases and "
        "then over the regions; a region absent from the reference scored 1 if it was absent from "
        "the prediction as well and 0 otherwise."
    )
    return " ".join(filter(None, [sentence, _secondary(facts.metrics, cite)]))


def _secondary(asked: Mapping[str, Any] | None, cite: Citations) -> str:
    if asked is None or not asked["names"]:
        return ""
    clauses = {
        "hd95": "the 95th percentile of the Hausdorff distance in mm (374 mm where a region was "
        "present in only one of prediction and reference)",
        "nsd": f"the normalised surface Dice at a tolerance of {asked['surface_tolerance']:g} mm",
        "sensitivity": "sensitivity",
        "precision": "precision",
        "lesion_dice": "lesion-wise Dice",
        "lesion_hd95": "the lesion-wise 95th percentile of the Hausdorff distance",
    }
    named = [clauses.get(name, name) for name in asked["names"]]
    named = [f"{c} {cite('surface-dice')}" if "surface Dice" in c else c for c in named]
    verb = "metric was" if len(named) == 1 else "metrics were"
    sentence = f"The secondary {verb} {listed(named)}."
    if any(name.startswith("lesion") for name in asked["names"]):
        dilation = counted(asked["lesion_dilation"], "voxel")
        told_apart = "connected components"
        if asked["lesion_dilation"]:
            told_apart = f"separated after dilating the reference by {dilation}"
        sentence += (
            f" Lesions were {told_apart} and scored as in the BraTS challenges since 2023, without "
            f"those of at most {asked['lesion_smallest']:g} mm³."
        )
    return sentence


def _statistics(facts: StudyFacts, cite: Citations) -> str:
    if not facts.statistics:
        return ""
    interval = "95 % bias-corrected and accelerated bootstrap confidence intervals " + cite(
        "bootstrap"
    )
    test = f"two-sided Wilcoxon signed-rank tests {cite('wilcoxon')}"
    if len(facts.folds) > 1:
        interval += ", cases being resampled within their fold,"
        test += f", cases being ranked within their fold {cite('strata')}"
    return (
        f"Models were compared by their paired differences on the test cases, with {interval} and "
        f"by {test}; p values were adjusted for multiple comparisons by Holm's method "
        f"{cite('holm')}."
    )


def _software(versions: Mapping[str, str], facts: StudyFacts, cite: Citations) -> str:
    packages = [f"{name} {versions[key]}" for key, name in PACKAGES.items() if key in versions]
    several = "s" if len(facts.commits) > 1 else ""
    commit = f" (commit{several} {listed(facts.commits)})" if facts.commits else ""
    sentence = (
        f"The study was run with voxelsoup {versions['voxelsoup']}{commit}, a workflow for "
        f"Snakemake {versions['snakemake']} {cite('snakemake')}, on Python {versions['python']} "
        f"with {listed(packages)}."
    )
    if facts.devices:
        devices = ["a CPU" if device.startswith("cpu") else device for device in facts.devices]
        sentence += f" Models were trained on {listed(dict.fromkeys(devices))}."
    return sentence
