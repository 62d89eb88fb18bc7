"""The command line `lime-edge`: one module for each command or family of commands.

Nothing else imports this room. Commands import what they need when they run, so that `--help` answers at once.
"""

from .commands import main

__all__ = ["main"]
