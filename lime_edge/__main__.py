"""Runs the command line: `python -m lime_edge` is the same as `lime-edge`."""

from lime_edge.cli.commands import main

if __name__ == "__main__":
    main(prog_name="lime-edge")
