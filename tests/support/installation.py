"""voxelsoup installed from its wheel, read-only, for a user who owns nothing of it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from sysconfig import get_path

from support.documents import REPOSITORY
from support.forked import SEARCHED

NOBODY = 65534
# Of capabilities(7): reads what others may not read, and writes nothing.
CAP_DAC_READ_SEARCH = 2


def sources(folder: Path) -> Path:
    """A copy of what git has of the checkout, so that building leaves nothing in it."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True)
    for name in filter(None, listed.stdout.split("\0")):
        if (REPOSITORY / name).is_file() and not name.startswith(("docs/", "tests/", "bench/")):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(REPOSITORY / name, folder / name)
    return folder


def pip(*arguments: str | Path, cwd: Path) -> None:
    """Run this environment's pip, to which the checkout's library is unknown."""
    environment = {name: text for name, text in os.environ.items() if name != "PYTHONPATH"}
    command = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    result = subprocess.run(
        [*command, *map(str, arguments)], cwd=cwd, env=environment, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stdout + result.stderr


def wheel_of(source: Path, folder: Path) -> Path:
    """Build the wheel of a folder or an archive of sources."""
    pip("wheel", "--no-build-isolation", "--no-deps", "-w", folder, source, cwd=folder.parent)
    (wheel,) = folder.glob("voxelsoup-*.whl")
    return wheel


def archive_of(source: Path, folder: Path) -> Path:
    """Build the archive of the sources, as the build backend of ``pyproject.toml`` does."""
    program = "import sys, build_backend; build_backend.build_sdist(sys.argv[1])"
    environment = os.environ | {"PYTHONPATH": str(source)}
    command = [sys.executable, "-c", program, str(folder)]
    subprocess.run(command, cwd=source, env=environment, check=True, capture_output=True)
    (archive,) = folder.glob("voxelsoup-*.tar.gz")
    return archive


@dataclass(frozen=True)
class Installation:
    """A virtual environment with the wheel, and the home of the user who runs it.

    ``root`` is the folder of all of it; nobody may write to the environment.
    """

    root: Path

    @property
    def source(self) -> Path:
        """The sources that the wheel was built from."""
        return self.root / "source"

    @property
    def wheel(self) -> Path:
        """The wheel."""
        (wheel,) = (self.root / "wheel").glob("voxelsoup-*.whl")
        return wheel

    @property
    def environment(self) -> Path:
        """The environment, read-only."""
        return self.root / "environment"

    @property
    def home(self) -> Path:
        """A folder of the user's own."""
        return self.root / "home"

    @property
    def library(self) -> Path:
        """The installed package."""
        (folder,) = (self.environment / "lib").glob("python*/site-packages/voxelsoup")
        return folder

    def folder(self, name: str) -> Path:
        """A new folder of the user's."""
        folder = self.home / name
        folder.mkdir()
        self.own(folder)
        return folder

    def own(self, path: Path) -> None:
        """Give a file or a folder to the user."""
        if os.geteuid() == 0:
            os.chown(path, NOBODY, NOBODY)

    def start(self, folder: Path, program: str, *arguments: str) -> subprocess.Popen[str]:
        """Start a program of the environment as the user, with little more than a home."""
        command = [*_as_another_user(), str(self.environment / "bin" / program), *arguments]
        environment = {
            "PATH": "/usr/bin:/bin",
            "HOME": str(self.home),
            "LANG": "C.UTF-8",
            "PYTHONPATH": str(SEARCHED),
        }
        streams = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        return subprocess.Popen(command, cwd=folder, env=environment, **streams)

    def run(self, folder: Path, program: str, *arguments: str, code: int = 0) -> str:
        """Run a program of the environment to its end; returns what it printed."""
        process = self.start(folder, program, *arguments)
        printed, _ = process.communicate()
        assert process.returncode == code, printed[-6000:]
        return printed


def _as_another_user() -> list[str]:
    """What runs a command as the user `nobody`; nothing where this is no superuser."""
    if os.geteuid() != 0:
        return []
    command = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]
    status = Path("/proc/self/status").read_text()
    bounding = int(status.partition("CapBnd:")[2].split()[0], 16)
    # Python and the packages may lie in a folder of the superuser's.
    if bounding >> CAP_DAC_READ_SEARCH & 1:
        command += ["--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"]
    return command


def install(root: Path) -> Installation:
    """Install the wheel in an environment of its own, with the packages of this one beside it."""
    installed = Installation(root)
    wheel = wheel_of(sources(installed.source), root / "wheel")
    subprocess.run(
        [sys.executable, "-m", "venv", "--without-pip", str(installed.environment)], check=True
    )
    python = installed.environment / "bin" / "python"
    pip("--python", python, "install", "--no-deps", wheel, cwd=root)
    # Without what lies there in .pth files: among them is the checkout that is installed there.
    (installed.library.parent / "dependencies.pth").write_text(f"{get_path('purelib')}\n")
    installed.home.mkdir()
    installed.own(installed.home)
    for path in (installed.environment, *installed.environment.rglob("*")):
        if not path.is_symlink():
            path.chmod(path.stat().st_mode & ~0o222)
    return installed
