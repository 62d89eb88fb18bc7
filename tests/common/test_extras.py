"""Missing optional dependencies: the error contains the pip command."""

from __future__ import annotations

import pytest

from lime_edge.common.extras import require_extra
from lime_edge.errors import MissingExtraError


def test_a_missing_module_becomes_the_pip_command() -> None:
    with (
        pytest.raises(MissingExtraError, match=r"'no_such_module' is not installed; run: pip install 'lime-edge\[x\]'"),
        require_extra("x"),
    ):
        import no_such_module  # type: ignore[import-not-found]  # noqa: F401


def test_the_innermost_extra_is_named() -> None:
    with pytest.raises(MissingExtraError, match=r"lime-edge\[inner\]"), require_extra("outer"), require_extra("inner"):
        raise ImportError("broken")


def test_other_errors_pass() -> None:
    with pytest.raises(ValueError, match="mine"), require_extra("x"):
        raise ValueError("mine")
