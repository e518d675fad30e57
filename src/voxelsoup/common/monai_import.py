"""MONAI without the packages that it imports for parts of itself that no job uses.

``import monai`` imports all of its modules, and these all packages that are installed and that one
of them can make use of: of the 4 s that it takes, 3 are for engines, drawings and readers of files
(MONAI 1.6.1). Each of these packages is optional to MONAI, which does without what is missing.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import ModuleType

# What MONAI's networks and losses use is not among them, nor what our own metrics use of scipy.
HIDDEN = (
    "PIL", "clearml", "cucim", "cupy", "cv2", "h5py", "ignite", "itk", "matplotlib", "mlflow",
    "nibabel", "onnx", "onnxruntime", "pandas", "requests", "scipy.optimize", "scipy.signal",
    "scipy.stats", "skimage", "sklearn", "tensorboard", "tensorboardX", "wandb",
)  # fmt: skip


def hide_extras_from_monai() -> None:
    """From now on import MONAI without them: for processes that belong to a job.

    Afterwards they can be imported as always; MONAI alone takes them for missing.
    """
    if "monai" not in sys.modules and not any(isinstance(each, _Finder) for each in sys.meta_path):
        sys.meta_path.insert(0, _Finder())


class _Finder(importlib.abc.MetaPathFinder):
    """Finds MONAI, once, with a loader that hides packages while it loads."""

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if name != "monai":
            return None
        sys.meta_path.remove(self)
        spec = importlib.machinery.PathFinder.find_spec(name, path, target)
        if spec is not None and spec.loader is not None:
            spec.loader = _Loader(spec.loader)
        return spec


class _Loader(importlib.abc.Loader):
    """Loads a module by its own loader, without the hidden packages."""

    def __init__(self, own: importlib.abc.Loader) -> None:
        self.own = own

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType | None:
        return self.own.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        with _hidden():
            self.own.exec_module(module)


@contextmanager
def _hidden() -> Iterator[None]:
    """What has been imported before stays; Python takes None for a package that is missing."""
    names = [name for name in HIDDEN if name not in sys.modules]
    sys.modules.update(dict.fromkeys(names))  # type: ignore[arg-type]
    try:
        yield
    finally:
        for name in names:
            sys.modules.pop(name, None)
