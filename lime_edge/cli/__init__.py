"""The command line `lime-edge`: one module for each command or family of commands.

No other room imports this one. Commands import heavy libraries only when they run, so that `--help` is fast.
"""

from .commands import main

__all__ = ["main"]
