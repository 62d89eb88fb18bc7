"""Compiles the native operators into the wheel if there is a C++ compiler; pyproject.toml has everything else.

Without a compiler the wheel is pure Python, and models run with the functions in their graphs.
"""

import importlib.util
from pathlib import Path
from typing import Any, ClassVar

from setuptools import Command, Distribution, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build import build

_INSIDE = "lime_edge/runtime/native"  # the library's folder in a wheel


def _compiler() -> Any:
    """Load runtime/native/compiler.py without the package, whose dependencies are not installed during a build."""
    path = Path(__file__).parent / "runtime" / "native" / "compiler.py"
    spec = importlib.util.spec_from_file_location("lime_compiler", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class LimeDistribution(Distribution):
    """A distribution that is specific to a platform once the library has been compiled."""

    compiled = False

    def has_ext_modules(self) -> bool:
        return self.compiled


class BuildOperators(Command):
    """Compiles the library into the build folder or, for an editable install, next to its sources."""

    build_lib: str | None
    editable_mode: bool

    def initialize_options(self) -> None:
        self.build_lib, self.editable_mode = None, False

    def finalize_options(self) -> None:
        self.set_undefined_options("build_py", ("build_lib", "build_lib"))

    def run(self) -> None:
        compiler = _compiler()
        folder = compiler.FOLDER if self.editable_mode else Path(str(self.build_lib), _INSIDE)
        (folder / compiler.LIBRARY).unlink(missing_ok=True)  # the library of an earlier build
        try:
            made = compiler.compile_operators(folder)
        except compiler.CompilerError as error:
            self.warn(f"WITHOUT THE NATIVE OPERATORS: {error}\nModels run more slowly; see docs/install.md.")
        else:
            self.announce(f"native operators: {made}", level=2)
            self.distribution.compiled = True

    def get_source_files(self) -> list[str]:
        return []  # the sources are package data

    def get_outputs(self) -> list[str]:
        return []  # an editable install needs no link to the library, which is loaded by its path

    def get_output_mapping(self) -> dict[str, str]:
        return {}


class LimeBuild(build):
    sub_commands: ClassVar[list[Any]] = [*build.sub_commands, ("build_operators", None)]


class LimeWheel(bdist_wheel):
    """A wheel for any Python 3 and one platform, because Python does not link the library."""

    def run(self) -> None:
        self.run_command("build")  # first, because the parent needs to know whether the wheel is specific to a platform
        self.root_is_pure = not self.distribution.has_ext_modules()
        super().run()

    def get_tag(self) -> tuple[str, str, str]:
        return (self.python_tag, "none", super().get_tag()[2])


setup(
    distclass=LimeDistribution,
    cmdclass={"build": LimeBuild, "build_operators": BuildOperators, "bdist_wheel": LimeWheel},
)
