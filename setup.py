"""Compiles the native operators into the wheel where there is a C++ compiler; all else is in pyproject.toml.

Without a compiler the wheel is pure Python and models run through the functions in their graphs.
"""

import importlib.util
from pathlib import Path
from typing import Any, ClassVar

from setuptools import Command, Distribution, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build import build

_INSIDE = "lime_edge/runtime/native"  # where the library lies in a wheel


def _compiler() -> Any:
    """runtime/native/compiler.py, without importing the package: its dependencies are not here yet."""
    path = Path(__file__).parent / "runtime" / "native" / "compiler.py"
    spec = importlib.util.spec_from_file_location("lime_compiler", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class LimeDistribution(Distribution):
    """Belongs to a platform from the moment a library was compiled."""

    compiled = False

    def has_ext_modules(self) -> bool:
        return self.compiled


class BuildOperators(Command):
    """Compiles the library; beside its sources where the install is editable."""

    build_lib: str | None
    editable_mode: bool

    def initialize_options(self) -> None:
        self.build_lib, self.editable_mode = None, False

    def finalize_options(self) -> None:
        self.set_undefined_options("build_py", ("build_lib", "build_lib"))

    def run(self) -> None:
        compiler = _compiler()
        folder = compiler.FOLDER if self.editable_mode else Path(str(self.build_lib), _INSIDE)
        (folder / compiler.LIBRARY).unlink(missing_ok=True)  # of an earlier build
        try:
            made = compiler.compile_operators(folder)
        except compiler.CompilerError as error:
            self.warn(f"WITHOUT THE NATIVE OPERATORS: {error}\nModels run, more slowly; see docs/install.md.")
        else:
            self.announce(f"native operators: {made}", level=2)
            self.distribution.compiled = True

    def get_source_files(self) -> list[str]:
        return []  # package data

    def get_outputs(self) -> list[str]:
        return []  # of an editable install: nothing but the library, which is loaded by its path

    def get_output_mapping(self) -> dict[str, str]:
        return {}


class LimeBuild(build):
    sub_commands: ClassVar[list[Any]] = [*build.sub_commands, ("build_operators", None)]


class LimeWheel(bdist_wheel):
    """A library that Python does not link: any Python 3, but one platform."""

    def run(self) -> None:
        self.run_command("build")  # before the parent asks for what is platform's and what is not
        self.root_is_pure = not self.distribution.has_ext_modules()
        super().run()

    def get_tag(self) -> tuple[str, str, str]:
        return (self.python_tag, "none", super().get_tag()[2])


setup(
    distclass=LimeDistribution,
    cmdclass={"build": LimeBuild, "build_operators": BuildOperators, "bdist_wheel": LimeWheel},
)
