"""How setuptools builds the wheel: the library, and in it the workflow of this checkout."""

from __future__ import annotations

import runpy
import shutil
from pathlib import Path

from setuptools.build_meta import *  # noqa: F403
from setuptools.command.build_py import build_py

# By its path: the library itself imports packages that a build does not have.
workflow = runpy.run_path("src/voxelsoup/common/workflow_files.py")


class BuildPy(build_py):
    """Also copies the workflow's files, but not for an editable install, which has the checkout."""

    def run(self) -> None:
        """Build the library, then put the workflow into it."""
        if not self.editable_mode:
            # Files of an earlier build that are gone by now would come into the wheel.
            shutil.rmtree(self.build_lib, ignore_errors=True)
        super().run()
        if not self.editable_mode:
            workflow["copy_workflow"](Path(), Path(self.build_lib, "voxelsoup", workflow["FOLDER"]))

    def get_source_files(self) -> list[str]:
        """What an archive of the sources needs, so that it builds the same wheel."""
        own = [str(file) for file in workflow["workflow_files"](Path())]
        return [*super().get_source_files(), "build_backend.py", *own]
