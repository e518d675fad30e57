"""A small package with one plug-in of each kind, installed as any other one."""

from __future__ import annotations

import importlib
import subprocess
import sys
import textwrap
from pathlib import Path

from voxelsoup.common import plug_ins
from voxelsoup.evaluation.metrics import METRICS

NAME, VERSION = "acme-tools", "1.2"
ENTRY_POINTS = {
    "layouts": {"folders": "acme_tools.layouts:find_cases"},
    "recipes": {"top": "acme_tools.recipes:top"},
    "metrics": {"volume_difference": "acme_tools.metrics:volume_difference"},
    "networks": {"tiny-net": "acme_tools.networks:TinyNet"},
    "losses": {"tversky": "acme_tools.losses:Tversky"},
}
MODULES = {
    "__init__.py": '"""One of each."""\n',
    "layouts.py": """
        from voxelsoup.data.case import Case, Source


        def find_cases(dataset, root):
            def volume(folder, name):
                return Source(folder / f"{folder.name}-{name}.nii.gz")

            # Neither in the order of the channels nor in that of the names.
            return [
                Case(
                    folder.name,
                    {name: volume(folder, name) for name in reversed(dataset.channels)},
                    volume(folder, "seg"),
                )
                for folder in sorted(root.iterdir(), reverse=True)
            ]
        """,
    "recipes.py": """
        from functools import partial

        from voxelsoup.soups.averaging import average
        from voxelsoup.soups.selection import CandidateSoup
        from voxelsoup.soups.soup import Decision, SoupResult, descending, in_equal_parts

        KEPT = 2


        def top(ingredients, selection):
            ordered = descending(ingredients)
            parts = in_equal_parts(ordered[:KEPT])
            outcome = selection.score_all(CandidateSoup(parts, partial(average, parts)))
            decisions = [
                Decision(one.trial, one.score, None, None, accepted=rank < KEPT)
                for rank, one in enumerate(ordered)
            ]
            kept = [one.trial for one in ordered[:KEPT]]
            return SoupResult(parts, kept, decisions, outcome.scores)
        """,
    "metrics.py": """
        import math

        from voxelsoup.evaluation.own_metrics import OwnMetric


        def _difference(masks):
            voxels = abs(int(masks.prediction.sum()) - int(masks.truth.sum()))
            return voxels * math.prod(masks.spacing) / 1000


        volume_difference = OwnMetric("Volume difference", "ml", False, 2, _difference)
        """,
    "networks.py": """
        from torch import nn

        from acme_tools.blocks import block


        class TinyNet(nn.Module):
            def __init__(self, in_channels, out_channels, width=4):
                super().__init__()
                self.layers = nn.Sequential(
                    *block(in_channels, width), nn.Conv3d(width, out_channels, 1)
                )

            def forward(self, image):
                return self.layers(image)
        """,
    "blocks.py": """
        from torch import nn


        def block(before, after):
            return nn.Conv3d(before, after, 3, padding=1), nn.InstanceNorm3d(after), nn.ReLU()
        """,
    "losses.py": """
        from torch import nn


        class Tversky(nn.Module):
            def __init__(self, batch, alpha=0.3):
                super().__init__()
                self.axes, self.alpha = [0, 2, 3, 4] if batch else [2, 3, 4], alpha

            def forward(self, logits, target):
                found = logits.sigmoid()
                both = (found * target).sum(self.axes)
                wrong = (found * (1 - target)).sum(self.axes) * self.alpha
                missed = ((1 - found) * target).sum(self.axes) * (1 - self.alpha)
                return 1 - ((both + 1) / (both + wrong + missed + 1)).mean()
        """,
}


def write_package(folder: Path) -> Path:
    """Write the source of the package; returns the folder of its modules."""
    groups = "\n".join(
        f'[project.entry-points."voxelsoup.{kind}"]\n'
        + "\n".join(f'{name} = "{value}"' for name, value in entries.items())
        for kind, entries in ENTRY_POINTS.items()
    )
    modules = folder / "acme_tools"
    modules.mkdir(parents=True)
    (folder / "pyproject.toml").write_text(
        f'[build-system]\nrequires = ["setuptools"]\nbuild-backend = "setuptools.build_meta"\n\n'
        f'[project]\nname = "{NAME}"\nversion = "{VERSION}"\n\n'
        f'[tool.setuptools]\npackages = ["acme_tools"]\n\n{groups}\n'
    )
    for name, text in MODULES.items():
        (modules / name).write_text(textwrap.dedent(text).lstrip())
    return modules


def pip_install(source: Path, target: Path) -> None:
    """Install a package into a folder for ``PYTHONPATH``, by pip and without a network."""
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index"]
    command += ["--no-build-isolation", "--disable-pip-version-check"]
    result = subprocess.run(
        [*command, "--target", str(target), str(source)], capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr


def write_installed(
    target: Path, name: str, entry_points: dict[str, dict[str, str]], module: str = ""
) -> None:
    """What pip leaves of a package with these entry points, but for its modules."""
    info = target / f"{name.replace('-', '_')}-{VERSION}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {VERSION}\n")
    lines = [
        f"[voxelsoup.{kind}]\n" + "".join(f"{key} = {value}\n" for key, value in entries.items())
        for kind, entries in entry_points.items()
    ]
    (info / "entry_points.txt").write_text("\n".join(lines))
    (info / "top_level.txt").write_text(f"{module}\n")


def forget() -> None:
    """Let the next look at what is installed be the first one."""
    for remembered in (
        plug_ins.find,
        plug_ins.offered,
        plug_ins._entry_points,
        plug_ins._sources,
        plug_ins._distribution_of,
    ):
        remembered.cache_clear()
    importlib.invalidate_caches()
    for module in [name for name in sys.modules if name.partition(".")[0] in ("acme_tools", "bad")]:
        del sys.modules[module]
    for name in [name for name in METRICS if plug_ins.is_plug_in("metrics", name)]:
        del METRICS[name]
