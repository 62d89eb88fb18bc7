"""Optional dependencies: a missing one raises an error that contains the pip command."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from lime_edge.errors import MissingExtraError


@contextmanager
def require_extra(extra: str) -> Iterator[None]:
    """Turn an ImportError inside the block into a MissingExtraError that names the extra to install."""
    try:
        yield
    except MissingExtraError:
        raise
    except ImportError as error:
        name = error.name or str(error)
        raise MissingExtraError(f"{name!r} is not installed; run: pip install 'lime-edge[{extra}]'") from error
