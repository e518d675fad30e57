"""The version of the code by what changes numbers: one hash per module that decides some.

A module is hashed by its syntax tree without docstrings, annotations and imports of types, so that
a reworded comment changes nothing and a changed loss is noticed.
"""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import voxelsoup
from voxelsoup.common.errors import CodeChanged
from voxelsoup.common.files import read_json

SOURCE = Path(voxelsoup.__file__).parent
# Its `uses_plug_in` guards what only studies with plug-ins do, whose own source is compared.
PLUG_INS = "voxelsoup.common.plug_ins"

# Kind of result -> the modules that decide its numbers. A test compares them with what the scripts
# of the rules import, and lists what decides none.
DECIDING: dict[str, tuple[str, ...]] = {
    "folds": ("data.folds", "data.balance"),
    "preprocessing": (
        "data.index.raters",
        "data.preprocessing.crop",
        "data.preprocessing.geometry",
        "data.preprocessing.intensities",
        "data.preprocessing.normalise",
        "data.preprocessing.preprocess",
        "data.preprocessing.raters",
        "data.preprocessing.resample",
        "data.volumes.alignment",
        "data.volumes.metaimage",
        "data.volumes.nifti",
        "data.volumes.nrrd",
        "data.volumes.volume",
        "data.volumes.voxel_layout",
    ),
    # Weights of other programs.
    "conversion": (
        "models.conversion",
        "models.foreign_files",
        "models.mednext",
        "models.networks",
        "models.renaming",
    ),
    "training": (
        "data.preprocessing.intensities",
        "data.regions",
        "models.losses",
        "models.mednext",
        "models.networks",
        "training.affine",
        "training.augment",
        "training.batch_norm",
        "training.data_parallel",
        "training.optimizers",
        "training.patches",
        "training.train",
    ),
    "scores": (
        "data.preprocessing.geometry",
        "data.preprocessing.intensities",
        "data.preprocessing.resample",
        "data.regions",
        "evaluation.label_maps",
        "evaluation.lesions",
        "evaluation.metrics",
        "evaluation.score",
        "evaluation.sliding_window",
        "evaluation.surfaces",
        "models.losses",
        "models.mednext",
        "models.networks",
    ),
    "post-processing": ("evaluation.postprocessing", "evaluation.postprocessing_search"),
    "soups": (
        "soups.averaging",
        "soups.barriers",
        "soups.candidates",
        "soups.ensemble",
        "soups.recipes.best",
        "soups.recipes.greedy",
        "soups.recipes.uniform",
        "soups.scorer",
        "soups.selection",
        "soups.soup",
        "training.affine",
        "training.augment",
        "training.batch_norm",
        "training.patches",
    ),
    # Beside those of training, scores and soups.
    "finish": (
        "soups.candidates",
        "soups.ensemble_targets",
        "soups.finished",
        "training.targets",
    ),
    "final": ("soups.final",),
    "configurations": ("soups.configuration_choice", "soups.configurations"),
    # Beside that of preprocessing.
    "predictions": (
        "data.regions",
        "evaluation.postprocessing",
        "evaluation.sliding_window",
        "evaluation.surfaces",
        "models.mednext",
        "models.networks",
        "prediction.ground_truth",
        "prediction.predictor",
    ),
    # Beside those of tables.
    "pairs": ("comparison.families",),
    "other tools": ("comparison.other_tools",),
    "tables": (
        "comparison.barriers",
        "comparison.configurations",
        "comparison.final",
        "comparison.findings",
        "comparison.folds",
        "comparison.overview",
        "comparison.postprocessing_effect",
        "comparison.score_summary",
        "comparison.statistics",
        "comparison.sweep_effects",
        "comparison.test_sets",
    ),
}

# Changes that left every number as it was: results of both versions are current.
# Module -> hash of the code before -> hash of the code after.
SAME_NUMBERS: dict[str, dict[str, str]] = {
    # `score_after` came.
    "evaluation.score": {"f3ec3b28e35a4508": "133fba42ce6d4e17"},
    # The recipes `hierarchical` and `learned` left, with what only they used.
    "soups.averaging": {"a412938609d966ab": "84ceb33bdb801270"},
    "soups.scorer": {"0cccb861c3bc03ec": "7bebba9a1192b240"},
    "soups.selection": {"64a0e2df583aee3d": "ad12071cc1147bcf"},
    "soups.soup": {"df33c115799c52da": "c0e21b2545ecb446"},
    # The layout of a test set may be named.
    "prediction.ground_truth": {"6f3ad6e456af42ad": "55403dcba033bcc9"},
}
# Modules that are gone: no study can ask for what they made.
REMOVED = ("soups.recipes.hierarchical", "soups.recipes.learned")


def as_of_now(code: dict[str, str]) -> dict[str, str]:
    """Module -> hash as results have it, in terms of the code that computes the same today."""
    kept = {module: digest for module, digest in code.items() if module not in REMOVED}
    return {m: SAME_NUMBERS.get(m, {}).get(digest, digest) for m, digest in kept.items()}


def module_hashes(kinds: Iterable[str], source: Path = SOURCE) -> dict[str, str]:
    """Module -> hash of all that decides numbers of these kinds of results."""
    modules = sorted({module for kind in kinds for module in DECIDING[kind]})
    return {module: _hash(source, module) for module in modules}


@cache
def _hash(source: Path, module: str) -> str:
    return hash_of_code(_path(source, module).read_text(encoding="utf-8"))


def _path(source: Path, module: str) -> Path:
    return source / f"{module.replace('.', '/')}.py"


def version() -> dict[str, Any]:
    """The version of the code by its files and by what of them decides numbers."""
    return {"files": _hash_of_files(), "modules": module_hashes(DECIDING)}


def check_started_with(path: Path) -> None:
    """Refuse to compute with other code than the study was started with.

    Args:
        path: where the start wrote down the ``version`` that it found.

    Raises:
        CodeChanged: if the difference may change numbers.
    """
    try:
        started = read_json(path)["code"]
    except (OSError, ValueError, KeyError):
        return
    # Syntax trees take half a second, and hardly ever anything differs.
    if started["files"] == _hash_of_files():
        return
    changed = changed_modules(started["modules"], module_hashes(DECIDING))
    if changed:
        raise CodeChanged(
            SOURCE,
            f"the code was changed after the study was started: {', '.join(changed)}",
            "the code that its other jobs have computed with",
            "start the study again: its plan names the results that the change concerns",
        )


def _hash_of_files() -> str:
    modules = sorted({module for modules in DECIDING.values() for module in modules})
    digest = hashlib.sha256()
    for module in modules:
        digest.update(_path(SOURCE, module).read_bytes())
    return digest.hexdigest()


def hash_of_code(text: str) -> str:
    """Hash of what Python code does, whatever is said about it."""
    digest = hashlib.sha256()
    for token in _tokens(_plain(ast.parse(text))):
        digest.update(token.encode(errors="surrogatepass") + b"\0")
    return digest.hexdigest()[:16]


def changed_modules(before: dict[str, str], now: dict[str, str]) -> list[str]:
    """Modules that differ, by the last part of their names; those of one side alone too.

    Those of plug-ins have all of their names.
    """
    before = as_of_now(before)
    differ = [name for name in {**before, **now} if before.get(name) != now.get(name)]
    return sorted({name if " " in name else name.rpartition(".")[2] for name in differ})


def _plain(tree: ast.Module) -> ast.Module:
    """The tree without what Python does not compute with."""
    return ast.fix_missing_locations(_Plain().visit(tree))


class _Plain(ast.NodeTransformer):
    """Leaves out docstrings, annotations, and imports that only annotations need."""

    def visit_Expr(self, node: ast.Expr) -> ast.AST | None:
        """A docstring or another bare constant does nothing."""
        return None if isinstance(node.value, ast.Constant) else self.generic_visit(node)

    def visit_arg(self, node: ast.arg) -> ast.AST:
        """Arguments without their types."""
        node.annotation = None
        return node

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        """Functions without the types that they return."""
        node.returns = None
        return self.generic_visit(node)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST:
        """The same as an assignment; fields without a value keep their names."""
        self.generic_visit(node)
        node.annotation = ast.Constant(None)
        return node

    def visit_ImportFrom(self, node: ast.ImportFrom) -> ast.AST | None:
        """Types change no number, nor does how plug-ins are found."""
        left_out = ("__future__", "typing", "collections.abc", PLUG_INS)
        return None if node.module in left_out else node

    def visit_If(self, node: ast.If) -> ast.AST | None:
        """Nor do imports for a type checker, nor, without plug-ins, what is done with them."""
        test = node.test.func if isinstance(node.test, ast.Call) else node.test
        left_out = isinstance(test, ast.Name) and test.id in ("TYPE_CHECKING", "uses_plug_in")
        return None if left_out else self.generic_visit(node)


def _tokens(node: object) -> Iterator[str]:
    """The nodes in order, without fields that are empty: those that later Pythons add are."""
    if isinstance(node, ast.AST):
        yield type(node).__name__
        for name, value in ast.iter_fields(node):
            if value not in (None, []) and name not in ("ctx", "kind", "type_comment"):
                yield name
                yield from _tokens(value)
        yield ")"
    elif isinstance(node, list):
        for item in node:
            yield from _tokens(item)
        yield "]"
    else:
        yield repr(node)
