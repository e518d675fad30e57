"""What other packages add to a study: layouts, recipes, metrics, networks and losses.

A package offers them by entry points of the groups below; a study may also name any importable
object by its dotted path, ``my_package.my_module.thing``. Both are found here without importing
anything, so that the rules stay free of torch; ``PlugIn.load`` imports.

Results that depend on a plug-in know its source: the hashes of its module and of all modules of the
same package that this imports (``PlugIn.code``), compared as the project's own code is.
"""

from __future__ import annotations

import ast
import importlib
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from hashlib import sha256
from importlib import metadata
from importlib.machinery import ModuleSpec
from importlib.util import resolve_name
from pathlib import Path
from typing import Any

from voxelsoup.common.code_version import hash_of_code
from voxelsoup.common.errors import CodeChanged, InputError
from voxelsoup.common.files import json_sha256, read_json
from voxelsoup.common.text import did_you_mean, listed

# Kind -> what one is called.
ONE = {
    "layouts": "layout",
    "recipes": "recipe",
    "metrics": "metric",
    "networks": "network",
    "losses": "loss",
}
# What the project itself has; networks are MONAI's, whose names are known once it is imported.
BUILT_IN: dict[str, tuple[str, ...]] = {
    "layouts": ("phantom", "brats", "decathlon", "nnunet", "monai", "table"),
    "recipes": ("greedy", "uniform", "best", "ensemble"),
    "metrics": ("hd95", "nsd", "sensitivity", "precision", "lesion_dice", "lesion_hd95"),
    "networks": (),
    "losses": ("dice", "dice-bce", "dice-focal"),
}
# What tables, columns and folders are called already, and the recipes of former versions.
RESERVED: dict[str, tuple[str, ...]] = {
    "recipes": ("all", "finished", "finished-best", "long-run", "hierarchical", "learned"),
    "metrics": ("dice", "loss", "case", "region", "mean"),
}
NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]*")
PATH = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+")
# Files about a recipe have its name and more: another recipe may not begin so.
TAKEN_FOR = re.compile(rf"({'|'.join((*BUILT_IN['recipes'], *RESERVED['recipes']))})[-.]")
# What stands before modules of plug-ins among those that decide numbers.
MARK = "plug-in "
# In the record of a start: the plug-ins of the study (`record`).
RECORDED = "plug_ins"


class UnknownPlugIn(ValueError):
    """There is nothing of this name, or more than one thing; pydantic adds key and value."""


@dataclass(frozen=True)
class PlugIn:
    """Something of another package.

    Attributes:
        kind: one of ``ONE``.
        name: as the study names it.
        module: that holds it; ``attribute`` is its name there.
        offered_by: the distribution whose entry point it is; None for a dotted path.
    """

    kind: str
    name: str
    module: str
    attribute: str
    offered_by: metadata.Distribution | None = None

    @property
    def path(self) -> str:
        """Its dotted path."""
        return f"{self.module}.{self.attribute}"

    @cached_property
    def distribution(self) -> metadata.Distribution | None:
        """The installed distribution that it is of; None if its folder is only on the path."""
        return self.offered_by or _distribution_of(self.module.partition(".")[0])

    @property
    def package(self) -> str:
        """Distribution and version, as ``acme-tools 1.2``."""
        if self.distribution is None:
            top = self.module.partition(".")[0]
            return f"{top} (of no installed distribution)"
        return f"{self.distribution.name} {self.distribution.version}"

    @property
    def of_package(self) -> str:
        """Where it is from, for people: ``acme-tools 1.2, acme.losses.focal``."""
        return f"{self.package}, {self.path}"

    def __str__(self) -> str:
        return f"{ONE[self.kind]} `{self.name}` ({self.of_package})"

    def code(self) -> dict[str, str]:
        """Module -> hash of its source: of its own and of those of its package that it imports.

        Raises:
            InputError: if a module is no Python that can be read.
        """
        return dict(self._code)

    @cached_property
    def _code(self) -> dict[str, str]:
        return {f"{MARK}{name}": self._hash(file) for name, file in _sources(self.module).items()}

    def _hash(self, file: Path) -> str:
        try:
            if file.suffix == ".py":
                return hash_of_code(file.read_text(encoding="utf-8"))
            return sha256(file.read_bytes()).hexdigest()[:16]
        except (OSError, SyntaxError, ValueError) as error:
            raise self.refused(
                f"its source {file} cannot be read: {error}", "a module of Python"
            ) from error

    def load(self) -> Any:
        """Import it.

        Raises:
            InputError: if its module cannot be imported or has nothing of the name.
        """
        try:
            found = importlib.import_module(self.module)
            for part in self.attribute.split("."):
                found = getattr(found, part)
        except (Exception, SystemExit) as error:
            raise self.refused(
                f"cannot be imported: {type(error).__name__}: {error}",
                f"a module {self.module} that can be imported here and has `{self.attribute}`",
            ) from error
        return found

    def refused(self, found: str, expected: str, fix: str = "") -> InputError:
        """The error of a plug-in that is not what it has to be."""
        others = f" ({', '.join(BUILT_IN[self.kind])})" if BUILT_IN[self.kind] else ""
        page = "docs/plug-ins.md"
        fix = fix or f"correct it ({page}), or take another {ONE[self.kind]}{others}"
        return InputError(str(self), found, expected, fix)

    def record(self) -> dict[str, Any]:
        """It as data, for records of what results were made with."""
        known = self.distribution
        return {
            "kind": self.kind,
            "name": self.name,
            "object": self.path,
            "package": known.name if known else None,
            "version": known.version if known else None,
            "code": self.code(),
        }


def group_of(kind: str) -> str:
    """The group of entry points of a kind of plug-ins."""
    return f"voxelsoup.{kind}"


@cache
def offered(kind: str) -> dict[str, list[PlugIn]]:
    """Name -> what installed packages offer under it, which should be one thing."""
    found: dict[str, list[PlugIn]] = {}
    for entry in _entry_points().select(group=group_of(kind)):
        plug_in = PlugIn(kind, entry.name, entry.module, entry.attr or "", entry.dist)
        found.setdefault(entry.name, []).append(plug_in)
    # In the same order wherever the packages lie.
    return {name: sorted(found[name], key=lambda one: one.of_package) for name in sorted(found)}


@cache
def _entry_points() -> Any:
    """Those of all installed packages, whose folders are looked through once."""
    return metadata.entry_points()


def is_plug_in(kind: str, name: str) -> bool:
    """Whether a name that a study may give is that of a plug-in."""
    if kind == "networks":
        return "." in name or name in offered(kind)
    return name not in BUILT_IN[kind] and name not in RESERVED.get(kind, ())


def uses_plug_in(kind: str, *names: str) -> bool:
    """Whether one of the names is that of a plug-in.

    Modules that decide numbers ask it in an ``if`` of its own, whose block is no part of their hash
    (``code_version``): results of studies without plug-ins do not depend on it.
    """
    return any(is_plug_in(kind, name) for name in names)


@cache
def find(kind: str, name: str) -> PlugIn:
    """The plug-in of a name; imports nothing.

    Raises:
        UnknownPlugIn: if there is none, or if the name is not that of one thing alone.
    """
    if kind == "recipes" and (taken := TAKEN_FOR.match(name)):
        raise UnknownPlugIn(
            f"begins as {taken[1]}, whose files its own would be taken for: the "
            "package has to name it otherwise"
        )
    if "." in name:
        return _by_path(kind, name)
    check_one_meaning(kind, name)
    if name not in offered(kind):
        raise UnknownPlugIn(unknown(kind, name, BUILT_IN[kind]))
    (found,) = offered(kind)[name]
    if not found.attribute:
        raise UnknownPlugIn(
            f"{found.package} offers it as the module {found.module}: its entry point has to name "
            f"`{found.module}:thing`"
        )
    return _located(found)


def unknown(kind: str, name: str, built_in: Sequence[str]) -> str:
    """What may be named instead of an unknown name, in words that begin as pydantic's own do."""
    own = ", ".join(f"'{name}'" for name in built_in)
    installed = in_packages(kind) or "none is installed"
    return (
        f"Input should be {own}, a {ONE[kind]} of an installed package ({installed}), or a dotted "
        f"path (my_package.my_module.thing){did_you_mean(name, [*built_in, *offered(kind)])}"
    )


def in_packages(kind: str) -> str:
    """What installed packages offer, in words; nothing if they offer nothing of the kind."""
    found = [f"{name} of {found[0].package}" for name, found in offered(kind).items()]
    return listed(found, "or") if found else ""


def in_words(record: Mapping[str, Any]) -> str:
    """A record of a plug-in for people: ``acme-tools 1.2, acme.losses.focal, 0123456789abcdef``."""
    package = " ".join(filter(None, (record["package"], record["version"])))
    code = json_sha256(record["code"])[:16]
    return ", ".join(filter(None, (package, record["object"], f"source {code}")))


def code_of(kind: str, *names: str) -> dict[str, str]:
    """``PlugIn.code`` of those of the names that are plug-ins."""
    plug_ins = (find(kind, name) for name in names if is_plug_in(kind, name))
    return {module: digest for one in plug_ins for module, digest in one.code().items()}


def check_started_with(path: Path) -> None:
    """Refuse to compute with other plug-ins than the study was started with.

    Args:
        path: the record of the start.

    Raises:
        CodeChanged: if the source of one is another one, or is not to be found.
    """
    try:
        started = read_json(path).get(RECORDED, [])
    except (OSError, ValueError):
        return
    for one in started:
        name = f"{ONE[one['kind']]} `{one['name']}`"
        try:
            now = find(one["kind"], one["name"]).code()
        except UnknownPlugIn as error:
            raise CodeChanged(
                name,
                f"cannot be found by this job: {error}",
                f"{one['object']} of {one['package']} {one['version']}, as the study's start had",
                "start the study in an environment that all of its jobs have",
            ) from error
        if now != one["code"]:
            raise CodeChanged(
                name,
                f"the source of {one['object']} was changed after the study was started",
                "the code that its other jobs have computed with",
                "start the study again: its plan names the results that the change concerns",
            )


def check_one_meaning(kind: str, name: str) -> None:
    """Make sure that no two packages offer something by a name, the project being one of them.

    Raises:
        UnknownPlugIn: naming them.
    """
    found = offered(kind).get(name, [])
    taken = name in BUILT_IN[kind] or name in RESERVED.get(kind, ())
    packages = [one.package for one in found]
    # Files about a recipe are called after it, with a hyphen and more.
    hyphen = "-" in name and kind == "recipes" and not taken
    if found and (hyphen or not NAME.fullmatch(name)):
        raise UnknownPlugIn(
            f"{packages[0]} offers it by a name that is not made of letters, digits"
            f"{' and _' if kind == 'recipes' else ', _ and -'}"
        )
    if found and taken:
        raise UnknownPlugIn(
            f"is a name of voxelsoup's own, and {listed(packages)} offers a {ONE[kind]} by it too: "
            "the package has to name its own otherwise, or to be uninstalled; its dotted path "
            f"{found[0].path} cannot be confused"
        )
    if len(found) > 1:
        raise UnknownPlugIn(
            f"is offered by {listed(packages)}: uninstall one, or give the dotted path of the one "
            f"that is meant ({listed([one.path for one in found], 'or')})"
        )


def _by_path(kind: str, name: str) -> PlugIn:
    if not PATH.fullmatch(name):
        raise UnknownPlugIn("is no dotted path such as my_package.my_module.thing")
    module, _, attribute = name.rpartition(".")
    return _located(PlugIn(kind, name, module, attribute))


def _located(plug_in: PlugIn) -> PlugIn:
    if _spec(plug_in.module) is None:
        source = f"{plug_in.offered_by.name} is damaged: " if plug_in.offered_by else ""
        raise UnknownPlugIn(
            f"{source}there is no module {plug_in.module} here: install its package in this "
            "environment, or put its folder on PYTHONPATH"
        )
    return plug_in


@cache
def _distribution_of(top: str) -> metadata.Distribution | None:
    """The distribution that a package of modules is of; searching all of them takes a while."""
    names = metadata.packages_distributions().get(top)
    return metadata.distribution(names[0]) if names else None


def _spec(module: str) -> ModuleSpec | None:
    """Where a module is; ``importlib.util.find_spec`` would import the packages around it."""
    parts, path, found = module.split("."), None, None
    for depth in range(1, len(parts) + 1):
        if depth > 1 and path is None:
            return None
        name = ".".join(parts[:depth])
        finders = (finder for finder in sys.meta_path if hasattr(finder, "find_spec"))
        found = next((spec for one in finders if (spec := one.find_spec(name, path))), None)
        if found is None:
            return None
        path = found.submodule_search_locations
    return found


@cache
def _sources(module: str) -> dict[str, Path]:
    """A module, and all modules of its package that it imports: name -> file."""
    top, todo, seen = module.partition(".")[0], [module], {}
    tried = set()
    while todo:
        parts = todo.pop().split(".")
        for name in (".".join(parts[:depth]) for depth in range(1, len(parts) + 1)):
            spec = None if name in tried else _spec(name)
            tried.add(name)
            if spec is None or spec.origin is None or not Path(spec.origin).is_file():
                continue
            seen[name] = Path(spec.origin)
            package = name if spec.submodule_search_locations else name.rpartition(".")[0]
            imported = _imports(seen[name], package)
            todo += [one for one in imported if one.partition(".")[0] == top]
    return dict(sorted(seen.items()))


def _imports(file: Path, package: str) -> Iterator[str]:
    """What a file imports; of ``from a import b`` both a and a.b, which may be a module."""
    try:
        tree = ast.parse(file.read_bytes()) if file.suffix == ".py" else ast.Module([], [])
    except (OSError, SyntaxError, ValueError):
        # Its hash says what is wrong.
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            name = "." * node.level + (node.module or "")
            try:
                base = resolve_name(name, package) if node.level else name
            except ImportError:
                continue
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names if alias.name != "*")
