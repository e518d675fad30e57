"""`docs/README.md` of a bundle: its model card (Mitchell et al., Model cards for model reporting,
FAT* 2019), written from the same numbers as the tables.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from voxelsoup.common.plug_ins import in_words
from voxelsoup.common.text import counted, listed
from voxelsoup.comparison.names import OPTIMISTIC, in_a_sentence, primary_titles
from voxelsoup.comparison.score_summary import Means, note_on_regions, shown_mean
from voxelsoup.comparison.tables import heading
from voxelsoup.deploy.bundle.metadata import BundleFacts, label_classes
from voxelsoup.evaluation.case_scores import ALL_REGIONS
from voxelsoup.prediction.model_files import Description
from voxelsoup.study.ingredients import note_on_given
from voxelsoup.study.study import Study


def model_card(
    study: Study,
    description: Description,
    facts: BundleFacts,
    weights: Mapping[int, str],
    files: Sequence[str],
    methods: str,
) -> str:
    """The card, as Markdown.

    ``weights``: fold -> file below the bundle; ``files``: endings of a case's files, in the order
    of the channels; ``methods``: the study's methods, as Markdown.
    """
    parts = [
        f"# {study.bundle.name} {study.bundle.version}",
        f"{facts.kind.title} of a study made with voxelsoup: segmentation of "
        f"{listed(description.regions)} in 3D scans ({listed(description.channels)}).",
        "## Use",
        study.bundle.intended_use,
        _how_to_run(facts, files, description, study.evaluation.overlap),
        "## Results",
        _results(study, facts),
        _primary(study, facts),
        "## How it was chosen and made",
        _choice(study, facts),
        _making(facts, weights),
        "## Limits",
        _limits(study, description, facts),
        "## Licence and authors",
        f"Weights: {study.bundle.licence}. Authors: {study.bundle.authors}. Data: "
        f"{study.bundle.data_source}. The licence of the data may restrict the use of the weights.",
        # Its headings one level down.
        re.sub("^#", "##", methods, flags=re.MULTILINE),
    ]
    return "\n\n".join(part.strip() for part in parts) + "\n"


def _how_to_run(
    facts: BundleFacts, files: Sequence[str], description: Description, overlap: float
) -> str:
    needed = "MONAI, nibabel, pytorch-ignite, fire and safetensors; voxelsoup itself is not needed"
    if not facts.runs_with_monai_alone:
        needed = (
            "MONAI, nibabel, pytorch-ignite, fire, safetensors and voxelsoup, whose resampling the "
            "configuration names"
        )
    if facts.network is not None:
        needed += f"; needed as well is the package of the network ({in_words(facts.network)})"
    written = "label map" if facts.order else "file of masks, one per region,"
    asked = f"--every-window --overlap {overlap:g}"
    return f"""With {needed}:

```
python -m monai.bundle run --config_file configs/inference.json --bundle_root . \\
    --dataset_dir SCANS --output_dir OUTPUT
```

`SCANS` is searched for the files of cases, whose names end in {listed(f"`{f}`" for f in files)};
other endings are given by `--channel_files`, other lists by `--datalist`. `OUTPUT` gets one
{written} per case, in the voxels of its first file: {label_classes(description, facts.order)}. The
volumes of a case must lie on one grid. Before weights are loaded, their SHA-256 is compared with
`configs/metadata.json`.

With voxelsoup, the same label maps, except for voxels whose probability is 0.5 to five digits
(sums are taken in another order):

```
voxelsoup predict BUNDLE SCANS OUTPUT {asked}
```

Without `--every-window`, voxelsoup skips the windows in which all channels are 0, which MONAI
predicts.

`voxelsoup verify BUNDLE` compares all files with their hashes. `models/*.safetensors` hold only
numbers. `models/*.ts` hold a program (TorchScript) beside the same weights, for runtimes
without MONAI: load them only from a bundle that you trust. Neither is a pickle, and there is no
`model.pt`."""


def _results(study: Study, facts: BundleFacts) -> str:
    scored = facts.results["dice"][ALL_REGIONS]
    lead = (
        f"Mean over {counted(scored.cases, 'test case')} of {counted(scored.folds, 'fold')}, with "
        "95 % bootstrap intervals (patients resampled within their fold). Each case was predicted "
        "by its own fold's model alone; the average of all folds' models was not scored, because "
        "each case was seen by some of them."
    )
    if len(study.folds.numbers) == 1:
        cases = counted(scored.cases, "test case")
        lead = f"Mean over {cases} with 95 % bootstrap intervals (patients resampled)."
    if facts.final:
        lead = " ".join(facts.final)
    if study.evaluation.protocol == "published":
        lead += f" All numbers are {OPTIMISTIC}."
    lead += note_on_regions(facts.results)
    return f"{lead}\n\n{_table(facts.results)}"


def _primary(study: Study, facts: BundleFacts) -> str:
    """The question of the study and its outcome, which did not choose the model."""
    first, second = map(in_a_sentence, primary_titles(study.primary))
    asked = (
        f"Primary question of the study: is the {first} better than the {second}, by the mean Dice "
        "over all regions and folds? It is tested by itself at 5 %, by a 95 % bootstrap interval "
        "(patients resampled within their fold)."
    )
    return f"{asked} Outcome: {facts.answer}." if facts.answer else asked


def _table(results: Means) -> str:
    regions = list(results["dice"])
    lines = ["| metric | " + " | ".join(regions) + " |", "|---" * (len(regions) + 1) + "|"]
    for metric, by_region in results.items():
        cells = [shown_mean(by_region[region], metric) for region in regions]
        lines.append(f"| {heading(metric)} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _choice(study: Study, facts: BundleFacts) -> str:
    scores = "\n".join(f"| {kind.title} | {kind.score:.4f} |" for kind in facts.kinds)
    if facts.final:
        return (
            "The folds chose its trials and the learning rate of its finish, by selection scores; "
            "test scores played no part in it. What the folds' own models scored on their "
            "selection cases:\n\n| kind of model | selection Dice |\n|---|---|\n" + scores
        )
    over = "over the folds" if len(study.folds.numbers) > 1 else f"of fold {study.folds.numbers[0]}"
    return (
        f"The kind of model with the highest mean Dice on the selection cases {over}; test "
        "scores played no part in it.\n\n| kind of model | selection Dice |\n|---|---|\n" + scores
    )


def _making(facts: BundleFacts, weights: Mapping[int, str]) -> str:
    if facts.final:
        (name,) = weights.values()
        return f"- `{name}`: {facts.final[0]}"
    lines = [
        f"- `{name}`: fold {fold}, "
        + (
            "a single model"
            if facts.ingredients[fold] == 1
            else f"the weighted average of the weights of {facts.ingredients[fold]} models"
        )
        + f"; selection Dice {facts.kind.scores[fold]:.4f}"
        for fold, name in weights.items()
    ]
    several = (
        "\n\nAt inference the probabilities of these models are averaged." if len(lines) > 1 else ""
    )
    return "\n".join(lines) + several


def _limits(study: Study, description: Description, facts: BundleFacts) -> str:
    lines = [
        f"- Trained and tested on {counted(facts.cases, 'case')} of "
        f"{counted(facts.patients, 'patient')} of one data set: other scanners, protocols, "
        "diseases and ages were not tested.",
        f"- Needs all of its {counted(len(description.channels), 'channel')}, on one grid, "
        "prepared as the training data were (including skull-stripping and registration, if "
        "they were).",
        "- Intervals say how certain the mean is over cases like these, not how good a "
        "single case will be.",
        "- No post-processing is applied when it runs with MONAI.",
    ]
    if facts.not_annotated:
        lines.append(
            "- Not annotated (`dataset.not_annotated`), and neither trained nor scored there: "
            f"{listed(facts.not_annotated)}. The bundle names no cases: `voxelsoup evaluate` needs "
            "`--study FILE` to leave these regions out."
        )
    lines += [f"- {note}"] if (note := note_on_given(study)) else []
    lines += [f"- Accepted in the training data (`dataset.accept`): {a}." for a in facts.accepted]
    if study.dataset.layout == "phantom":
        lines.insert(0, "- Trained on generated phantoms: it cannot segment real scans.")
    return "\n".join(lines)
