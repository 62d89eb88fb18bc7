"""The group `lime-edge` with every command; turns errors of the library into messages and exit codes."""

from __future__ import annotations

from typing import Any

import click

from lime_edge import __version__
from lime_edge.errors import LimeError

from . import audit, compare, data, export, inspect, learn, receipt, route, run, serve, streams, train
from .packages import catalogue, pack, store, trust

_STOPPED = 130  # the shells' exit code for a program ended by Ctrl-C


class _Commands(click.Group):
    """Lists commands in workflow order, and reports errors of the library as one message."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)

    def main(self, *args: Any, **extra: Any) -> Any:
        streams.prepare()
        try:
            return super().main(*args, **extra)  # ends quietly if nobody reads standard output any more
        except OSError as error:  # of --help and --version, which print before there is a command
            streams.abandon_output(error)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except LimeError as error:
            raise click.ClickException(str(error)) from error
        except KeyboardInterrupt:
            _restore_terminal()
            ctx.exit(_STOPPED)


def _restore_terminal() -> None:
    """Show the cursor, which an interrupted progress bar leaves hidden."""
    from rich import get_console

    get_console().show_cursor()
    click.echo("\nstopped", err=True)


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="lime-edge")
def main() -> None:
    """One small language model, many skills, switched in microseconds.

    A model owner trains a checkpoint and exports it; a skill author learns skills on the checkpoint; an app runs the
    exported model with skills. `lime-edge demo` is a tour with a ready-made model.
    """


for _command in (
    data.data,
    train.train,
    learn.learn,
    route.route,
    export.export,
    inspect.inspect,
    run.run,
    run.chat,
    run.evaluate,
    compare.compare,
    receipt.receipt,
    serve.serve,
    inspect.list_skills,
    *store.COMMANDS,
    pack.pack,
    catalogue.index,
    catalogue.search,
    trust.sign,
    trust.verify,
    audit.audit,
    inspect.doctor,
    run.demo,
):
    main.add_command(_command)
