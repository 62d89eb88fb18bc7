"""Silences third-party libraries while a command runs. Needs the extra `train`."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from typing import Any


@contextmanager
def silence_libraries() -> Iterator[None]:
    """Hide transformers' progress bars and third-party deprecation warnings.

    Anything else that is printed goes to standard error, because standard output is for results.
    """
    from transformers.utils import logging

    bars: Any = logging
    shown = bars.is_progress_bar_enabled()
    bars.disable_progress_bar()
    try:
        with warnings.catch_warnings(), redirect_stdout(sys.stderr):
            for category in (DeprecationWarning, FutureWarning):
                warnings.simplefilter("ignore", category)
            yield
    finally:
        if shown:
            bars.enable_progress_bar()
