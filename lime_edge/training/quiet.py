"""Other libraries, kept from talking where a command speaks for itself. Needs the extra `train`."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from typing import Any


@contextmanager
def silence_libraries() -> Iterator[None]:
    """Without the bars of transformers for files that load at once, and what libraries deprecate of each other.

    What is printed all the same, progress above all, goes to standard error: standard output is for results.
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
