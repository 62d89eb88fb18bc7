"""Optional dependencies: the error that says which pip command brings them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from lime_edge.errors import MissingExtraError


@contextmanager
def require_extra(extra: str) -> Iterator[None]:
    """Imports inside the block belong to `extra`; a missing one becomes a MissingExtraError."""
    try:
        yield
    except MissingExtraError:
        raise
    except ImportError as error:
        name = error.name or str(error)
        raise MissingExtraError(f"{name!r} is not installed; run: pip install 'lime-edge[{extra}]'") from error
