"""20,000 bodies: right ones, nearly right ones and noise. No answer that is not declared, and the service goes on."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lime_edge.server.operations.server_settings import Limits
from tests.server.bodies import BODIES, PATHS, RAW
from tests.server.served import chat, running, settled, shared
from tests.server.test_app import check

COUNT = 20_000


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with running(limits=Limits(body_bytes=2**16)) as found:
        yield found


@settings(max_examples=COUNT, suppress_health_check=list(HealthCheck), derandomize=False)
@given(st.sampled_from(PATHS), BODIES | RAW)
def test_any_body(url: str, path: str, body: Any) -> None:
    check(url, path, body)


def test_after_all_this_it_still_answers(url: str) -> None:
    settled(shared())
    assert chat(url).status == 200
    assert shared().scheduler.stats().kv_used == 0
