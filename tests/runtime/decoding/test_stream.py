"""Streams: the pieces add up to the answer of `generate`, and an abandoned stream frees its row."""

from __future__ import annotations

from typing import Any

import pytest

from lime_edge.errors import (
    ConfigError,
)
from lime_edge.runtime import Runtime
from tests.support.runtime_models import PROMPTS, exported, runtime, skill


@pytest.fixture(scope="module", params=[1, 3])
def made(request: pytest.FixtureRequest) -> Runtime:
    found = runtime(exported(request.param), "reply", "other")
    found.load_skill(skill(exported(request.param), "always", activation="always"))
    return found


@pytest.mark.parametrize("name", ["reply", None])
def test_a_stream_is_what_generate_says(made: Runtime, name: str | None) -> None:
    wanted = made.generate(PROMPTS[1], name, max_new_tokens=40)
    stream = made.stream(PROMPTS[1], name, max_new_tokens=40)
    with pytest.raises(ConfigError, match="has not ended"):
        _ = stream.generation
    pieces = list(stream)
    assert "".join(pieces) == wanted.text
    assert len(pieces) > 5
    assert stream.generation.token_ids == wanted.token_ids
    assert stream.generation.receipt == wanted.receipt


def test_leaving_a_stream_early_frees_its_row() -> None:
    made = runtime(exported(), "legal", "brief")
    stream = made.stream("Hello", {"legal": 0.25}, max_new_tokens=30)
    next(stream)
    assert made._bank.in_use == 4
    del stream
    assert made._bank.in_use == 3
    never_read = made.stream("Hello", {"legal": 0.25})
    never_read.close()
    assert made._bank.in_use == 3
    assert list(never_read) == []


def test_streams_of_several_skills_side_by_side() -> None:
    made = runtime(exported(), "legal", "brief")
    specs: list[Any] = ["legal", "brief", None, {"legal": 0.3, "brief": 0.3}]
    wanted = [made.generate("Hello", spec, max_new_tokens=10).text for spec in specs]
    streams = [made.stream("Hello", spec, max_new_tokens=10) for spec in specs]
    found = [""] * len(specs)
    going = list(range(len(specs)))
    while going:
        for number in list(going):
            piece = next(streams[number], None)
            if piece is None:
                going.remove(number)
            else:
                found[number] += piece
    assert found == wanted
