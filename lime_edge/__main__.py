"""`python -m lime_edge` is `lime-edge`."""

from .cli import main

if __name__ == "__main__":
    main(prog_name="lime-edge")
