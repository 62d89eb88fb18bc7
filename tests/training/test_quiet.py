"""Libraries are silent while a command runs, and as talkative as before afterwards."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
from transformers.utils import logging

from lime_edge.training.quiet import silence_libraries


def test_deprecations_are_hidden_and_other_warnings_are_not() -> None:
    with silence_libraries():
        warnings.warn("old name", FutureWarning, stacklevel=1)
        warnings.warn("old name", DeprecationWarning, stacklevel=1)
        with pytest.raises(UserWarning, match="careful"):  # the test run turns warnings into errors
            warnings.warn("careful", UserWarning, stacklevel=1)
    with pytest.raises(FutureWarning):
        warnings.warn("old name", FutureWarning, stacklevel=1)


def test_prints_go_to_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    with silence_libraries():
        print("inside")
    print("outside")
    assert tuple(capsys.readouterr()) == ("outside\n", "inside\n")


@pytest.mark.parametrize("shown", [True, False])
def test_progress_bars_are_restored_even_after_an_error(shown: bool) -> None:
    bars: Any = logging  # its functions have no annotations
    switch = {True: bars.enable_progress_bar, False: bars.disable_progress_bar}
    before = logging.is_progress_bar_enabled()
    switch[shown]()
    try:
        with silence_libraries():
            assert not logging.is_progress_bar_enabled()
        with pytest.raises(ZeroDivisionError), silence_libraries():
            _ = 1 / 0
        assert logging.is_progress_bar_enabled() == shown
    finally:
        switch[before]()
