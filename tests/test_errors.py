"""The error tree: what is documented exists, every error has its built-in type, and faults are listed."""

from __future__ import annotations

import builtins
import re

from lime_edge import errors
from lime_edge.errors import ConfigError, LimeError, UnknownSkillError


def test_the_tree_of_the_docstring_is_the_tree_of_the_classes() -> None:
    classes = {cls.__name__: cls for cls in vars(errors).values() if isinstance(cls, type)}
    drawn = re.findall(r"── (\w+)(?: +\((\w+)\))?", errors.__doc__ or "")
    assert {name for name, _ in drawn} == {name for name in classes if name.endswith("Error")} - {"LimeError"}
    for name, builtin in drawn:
        assert issubclass(classes[name], LimeError)
        assert not builtin or issubclass(classes[name], getattr(builtins, builtin)), name


def test_every_fault_has_a_line() -> None:
    error = ConfigError("nothing fits", ["a is 1; expected 2", "b is missing"])
    assert str(error) == "nothing fits\n  - a is 1; expected 2\n  - b is missing"
    assert (error.message, error.faults) == ("nothing fits", ("a is 1; expected 2", "b is missing"))


def test_a_key_error_prints_its_message_without_quotes() -> None:
    assert str(UnknownSkillError("no skill 'a' is loaded")) == "no skill 'a' is loaded"


def test_a_message_can_be_printed_whatever_it_quotes() -> None:
    assert str(ConfigError("no file 'a\udc80'", ["b \ud83d"])) == "no file 'a\\udc80'\n  - b \\ud83d"
