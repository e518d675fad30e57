"""Advice of commands in the words of a study, whose test sets are predicted and scored alike."""

from __future__ import annotations

import re

from voxelsoup.common.errors import InputError

# Where messages name an option of a command: what a study has in its place.
IN_A_STUDY = (
    (
        r"say which is (which|meant): --channels .*",
        "call the channels of the test set as `dataset.channels` does",
    ),
    (r" \(--channels says what INPUT calls the channels\)", ""),
    (r"correct --channels \(`dataset.channel_names` in a study\)", "rename the channels"),
    (r"or, if it is right, say so: .*", "or the names of the files"),
    (
        r"name the folder of its label maps \(--labels FOLDER\)",
        "put its label maps beside its scans",
    ),
    (r"\(--regions [^)]*\)", "(`labels` in the dataset.json of the test set)"),
    (r"--regions \S+", "`labels` in the dataset.json of the test set"),
    (r"\(--background (\d+)\)", r"(`dataset.background: [\1]`)"),
    (r"--label-order \S+", "`predict.label_order`"),
    (r"--window-batch, --device cpu", "`evaluation.window_batch`, `training.device: cpu`"),
)


def as_of_a_study(error: InputError) -> InputError:
    """The same with keys of the study, or what to do to the test set, in place of options."""
    fix = error.fix
    for option, key in IN_A_STUDY:
        fix = re.sub(option, key, fix)
    return InputError(error.where, error.found, error.expected, fix)
