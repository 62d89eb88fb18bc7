"""Answers between the thread that runs the model and the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from lime_edge.errors import ConfigError, UnknownSkillError
from lime_edge.runtime import Runtime
from lime_edge.server.pieces import Answers, Piece, Row
from tests.server.served import running, settled, shared


def driven(use: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
    """Run a coroutine while a server drives the shared runtime."""
    with running():
        return asyncio.run(use())


async def pieces(answers: Answers) -> list[Piece]:
    with answers:
        await answers.begin()
        return [piece async for piece in answers]


def row(prompt: Any = "Hello", **settings: Any) -> Row:
    return Row(prompt, {"max_new_tokens": 8, **settings})


def test_pieces_add_up_to_the_answers_of_all_rows() -> None:
    rows = [row(), row("no", logprobs=1), row(max_new_tokens=1)]
    found = driven(lambda: pieces(Answers(shared(), "legal", False, rows)))
    for number, one in enumerate(rows):
        mine = [piece for piece in found if piece.row == number]
        expected = shared().generate(one.prompt, "legal", **one.settings)
        assert [piece.ended is not None for piece in mine] == [False] * (len(mine) - 1) + [True]
        assert mine[-1].ended is not None
        assert mine[-1].ended.token_ids == expected.token_ids
        assert "".join(piece.text for piece in mine) == expected.text
        assert sum(piece.tokens for piece in mine) == len(expected.token_ids)
        found_logprobs = [one.logprob for piece in mine for one in piece.logprobs]
        assert found_logprobs == pytest.approx([one.logprob for one in expected.logprobs or ()], abs=1e-4)


@pytest.mark.parametrize(
    ("skill", "rows", "error"),
    [("none", [row()], UnknownSkillError), ("legal", [row(), row(max_new_tokens=0)], ConfigError)],
)
def test_a_row_that_is_invalid_ends_all(skill: str, rows: list[Row], error: type[Exception]) -> None:
    with pytest.raises(error):
        driven(lambda: pieces(Answers(shared(), skill, False, rows)))
    settled(shared())


def test_an_error_while_the_model_runs_is_raised_here(monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(*args: Any, **settings: Any) -> Any:
        on_end = settings["on_end"]

        class Broken:
            def result(self) -> None:
                raise RuntimeError("broken")

            def cancel(self) -> None:
                pass

        made = Broken()
        on_end(made)
        return made

    monkeypatch.setattr(Runtime, "submit", failing)
    with pytest.raises(RuntimeError, match="broken"):
        driven(lambda: pieces(Answers(shared(), "legal", False, [row()])))


def test_closing_frees_the_rows() -> None:
    async def use() -> list[Piece]:
        answers = Answers(shared(), "legal", False, [row(max_new_tokens=200)] * 3)
        await answers.begin()
        first = await anext(answers)
        answers.close()
        return [first, *[piece async for piece in answers]]

    found = driven(use)
    reasons = [piece.ended.finish_reason for piece in found if piece.ended is not None]
    assert reasons == ["cancelled"] * 3
    settled(shared())


def test_a_client_that_leaves_while_its_rows_are_made_ready_leaves_none() -> None:
    async def use() -> None:
        for delay in (0, 0.0005, 0.002, 0.01):
            answers = Answers(shared(), "legal", False, [row(max_new_tokens=200)] * 8)
            task = asyncio.ensure_future(answers.begin())
            await asyncio.sleep(delay)
            task.cancel()
            answers.close()
            await asyncio.gather(task, return_exceptions=True)
        await asyncio.sleep(0.2)
        await asyncio.to_thread(settled, shared())

    driven(use)
