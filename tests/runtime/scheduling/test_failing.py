"""What a block raises is reported, and goes no further."""

from __future__ import annotations

import pytest

from lime_edge.runtime.scheduling.failing import Failing


@pytest.mark.parametrize("error", [ValueError("x"), KeyboardInterrupt(), SystemExit(3)])
def test_any_exception_is_reported(error: BaseException) -> None:
    found: list[BaseException] = []
    with Failing(found.append) as block:
        raise error
    assert found == [error]
    assert block.failed


def test_a_block_that_works_reports_nothing() -> None:
    found: list[BaseException] = []
    with Failing(found.append) as block:
        found += []
    assert (found, block.failed) == ([], False)
