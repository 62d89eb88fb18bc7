"""Requests with pictures, end to end on a tiny model: against the graph run whole, and never from another's picture."""

from __future__ import annotations

import base64
import threading
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from lime_edge.errors import ConfigError
from lime_edge.runtime import Runtime
from lime_edge.skills.interface import AnswerForm, Interface
from tests.runtime.vision.video_files import given as frames_of
from tests.runtime.vision.video_files import video
from tests.runtime.vision.vision_case import TOKENS, PlainSight, asked, opened, picture, seeing
from tests.support.runtime_models import exported, skill

WORDS = ("is it so", "what is this", "no", "a")


def plain_answer(runtime: Runtime, messages: Any, pictures: list[Any], count: int = 5) -> list[int]:
    """Greedy tokens of the base; every step runs the whole sequence, with features that no runtime made."""
    ids = runtime._text.tokens(messages).ids.tolist()
    sight = PlainSight(seeing())
    made: list[int] = []
    for _ in range(count):
        made.append(int(sight.logits(ids + made, pictures)[-1].argmax()))
    return made


def ids_of(runtime: Runtime, messages: Any, **settings: Any) -> list[int]:
    return list(runtime.generate(messages, None, max_new_tokens=5, **settings).token_ids)


@pytest.mark.parametrize(
    "shown", [(1,), ("what is this", 1), (1, "and", 2, "differ?"), (1, 1), ("a", 1, 2, 1, "b")], ids=str
)
def test_answers_are_those_of_the_whole_graph(shown: tuple[Any, ...]) -> None:
    values = [one if isinstance(one, str) else picture(one) for one in shown]
    messages = asked(*values)
    runtime = opened()
    expected = plain_answer(runtime, messages, [one for one in values if not isinstance(one, str)])
    assert ids_of(runtime, messages) == expected
    assert ids_of(runtime, messages) == expected  # from the prefix cache
    assert runtime._graph.pictures.encoded == len({one for one in shown if isinstance(one, int)})  # type: ignore[union-attr]


def test_every_form_of_a_picture_is_the_same_picture(tmp_path: Path) -> None:
    path = tmp_path / "leaf.png"
    Image.fromarray(picture(1)).save(path)
    runtime = opened()
    expected = ids_of(runtime, asked(picture(1), "a"))
    uri = "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode()
    forms: list[dict[str, Any]] = [
        {"type": "image", "path": str(path)},
        {"type": "image", "data": path.read_bytes()},
        {"type": "image", "image": Image.open(path)},
        {"type": "image_url", "image_url": {"url": uri}},
    ]
    for part in forms:
        assert ids_of(runtime, [{"role": "user", "content": [part, {"type": "text", "text": "a"}]}]) == expected
    assert runtime._graph.pictures is not None
    assert runtime._graph.pictures.encoded == 2  # as an object, and as a file


def test_a_conversation_goes_on_about_its_pictures() -> None:
    runtime = opened()
    turns = [*asked(picture(1), "what is this"), {"role": "assistant", "content": "yes"}, *asked("and", picture(2))]
    assert ids_of(runtime, turns[:1]) == plain_answer(runtime, turns[:1], [picture(1)])
    result = runtime.generate(turns, None, max_new_tokens=5)
    assert list(result.token_ids) == plain_answer(runtime, turns, [picture(1), picture(2)])
    assert result.timings.reused_tokens > TOKENS
    assert runtime._graph.pictures.encoded == 2  # type: ignore[union-attr]


def test_skills_share_the_features_and_not_what_they_read() -> None:
    runtime = opened()
    for name, activation in (("one", "always"), ("two", "always"), ("late", "response")):
        runtime.load_skill(skill(seeing(), name, activation=activation))
    messages = asked(picture(1), "a")
    found = {name: runtime.generate(messages, name, max_new_tokens=5) for name in (None, "one", "two", "late")}
    assert len({one.token_ids for one in found.values()}) == 4
    assert [found[name].timings.reused_tokens for name in ("one", "two")] == [0, 0]  # they read the prompt themselves
    assert found["late"].timings.reused_tokens > TOKENS  # the base has read it
    assert runtime._graph.pictures.encoded == 1  # type: ignore[union-attr]
    rows: list[Any] = [messages, messages, "text", asked("b", picture(2))]
    batch = runtime.generate(rows, ["two", "one", None, None], max_new_tokens=5)
    assert [batch[0].token_ids, batch[1].token_ids] == [found["two"].token_ids, found["one"].token_ids]


def test_a_list_of_parts_goes_through_the_interface() -> None:
    runtime = opened()
    interface = Interface(prefix="say ", suffix="!", answers=AnswerForm("choices", ["yes", "no"]))
    runtime.load_skill(skill(seeing(), "asks", interface=interface))
    parts: Any = [{"type": "image", "image": picture(1)}, {"type": "text", "text": "what"}]
    found = runtime.generate(parts, "asks", max_new_tokens=8)
    whole = runtime.generate(asked(picture(1), "say what!"), "asks", answers=["yes", "no"], max_new_tokens=8)
    assert found.text == whole.text
    assert found.text in ("yes", "no")


def test_choices_contexts_streams_and_constraints() -> None:
    runtime = opened()
    messages = asked(picture(1), "a")
    choice = runtime.choose(messages, ["yes", "no", "it is so"], None)
    alone = opened(prefix_cache=0)
    assert alone.choose(messages, ["yes", "no", "it is so"], None).scores == choice.scores
    assert runtime.choose(asked(picture(2), "a"), ["yes", "no"], None).scores["no"] != choice.scores["no"]
    with runtime.prefill(asked(picture(1)), None) as context:
        found = runtime.generate("a", None, context=context, max_new_tokens=5)
        assert context.tokens > TOKENS
        assert found.timings.reused_tokens >= context.tokens - 1
        joined = asked(picture(1), "\n\n", "a")
        assert list(found.token_ids) == ids_of(alone, joined)
    pieces = runtime.stream(messages, None, max_new_tokens=5)
    "".join(pieces)
    assert list(pieces.generation.token_ids) == ids_of(alone, messages)
    likeliest = alone.choose(messages, ["yes", "no"], None).label
    assert runtime.generate(messages, None, answers=["yes", "no"], max_new_tokens=8).text == likeliest


def test_drafts_and_penalties_know_no_features() -> None:
    """A repeated picture invites the prompt lookup to propose its features; the penalty counts tokens of text alone."""
    runtime = opened(prefix_cache=0)
    messages = asked(picture(1), "a", picture(1), "a", picture(1), "a")
    plain = runtime.generate(messages, None, max_new_tokens=40, speculate=False)
    assert runtime.generate(messages, None, max_new_tokens=40).token_ids == plain.token_ids
    assert runtime.generate(messages, None, max_new_tokens=5, repetition_penalty=1.3).token_ids
    assert min(plain.token_ids) >= 0


def test_videos_of_frames_that_stand_like_pictures() -> None:
    runtime = opened()
    clip = frames_of(3, (12, 9))
    shown: Any = [{"role": "user", "content": [{"type": "video", "video": clip}, {"type": "text", "text": "a"}]}]
    assert ids_of(runtime, shown) == ids_of(runtime, asked(*clip, "a"))
    assert runtime._graph.pictures.encoded == 3  # type: ignore[union-attr]
    file: Any = [{"role": "user", "content": [{"type": "video", "data": video()}, {"type": "text", "text": "a"}]}]
    assert len(ids_of(runtime, file)) == 5


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3), st.sampled_from(WORDS)), min_size=2, max_size=5))
def test_no_request_is_answered_from_anothers_picture(rows: list[tuple[int, int, str]]) -> None:
    """Requests of equal text and other pictures share what stands before the pictures, and nothing from there on."""
    runtime = _shared()
    for first, second, word in rows:
        messages = asked("x", picture(first), picture(second), word)
        found = runtime.generate(messages, None, max_new_tokens=3)
        assert list(found.token_ids) == _expected(first, second, word)
    for one, other in pairwise(rows):
        ids, others = (runtime._text.tokens(asked("x", *map(picture, row[:2]), row[2])).ids for row in (one, other))
        mine, theirs = set(ids[ids < 0][:TOKENS]), set(others[others < 0][:TOKENS])
        assert mine & theirs == (mine if one[0] == other[0] else set())


_RUNTIMES: list[Runtime] = []
_ANSWERS: dict[tuple[int, int, str], list[int]] = {}


def _shared() -> Runtime:
    if not _RUNTIMES:
        _RUNTIMES.append(opened())
    return _RUNTIMES[0]


def _expected(first: int, second: int, word: str) -> list[int]:
    key = (first, second, word)
    if key not in _ANSWERS:
        messages, pictures = asked("x", picture(first), picture(second), word), [picture(first), picture(second)]
        _ANSWERS[key] = plain_answer(_shared(), messages, pictures, 3)
    return _ANSWERS[key]


def test_threads_with_equal_texts_and_other_pictures() -> None:
    runtime, wrong = opened(), []
    expected = {number: ids_of(opened(prefix_cache=0), asked("x", picture(number), "a")) for number in range(4)}
    assert len({tuple(one) for one in expected.values()}) == 4

    def ask(seed: int) -> None:
        for number in np.random.default_rng(seed).integers(0, 4, 12):
            found = ids_of(runtime, asked("x", picture(int(number)), "a"))
            if found != expected[int(number)]:
                wrong.append((number, found))

    threads = [threading.Thread(target=ask, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert runtime._graph.pictures.encoded == 4  # type: ignore[union-attr]


def test_text_alone_is_answered_as_without_a_tower() -> None:
    seen, text = opened(), Runtime.load(exported(), threads=1)
    ids_of(seen, asked(picture(1), "a"))  # the binding has read features before
    for prompt in ("is it so", [{"role": "user", "content": "what is this"}]):
        assert seen.choose(prompt, ["yes", "no"], None).scores == text.choose(prompt, ["yes", "no"], None).scores


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        ([{"type": "image", "path": "none.png"}], "row 0: image 0: 'none.png' cannot be read: No such file"),
        ([{"type": "image", "data": b"x"}, {"type": "image", "data": b"y"}], "image 1: the picture is no picture"),
        ([{"type": "image", "url": "https://x.org/y.png"}], "nothing is fetched from a network"),
        (
            [{"type": "image", "image": picture(1)}] * 80,
            r"pictures have \d+ tokens, the context of 256",
        ),
        ([{"type": "video", "frames": [picture(1)] * 5}], "has 5 frames; expected at most 4"),
    ],
)
def test_what_cannot_be_shown(content: Any, fault: str) -> None:
    runtime = opened()
    with pytest.raises(ConfigError, match=fault):
        runtime.generate([{"role": "user", "content": content}], None)
    assert ids_of(runtime, asked(picture(1), "a")) == ids_of(runtime, asked(picture(1), "a"))


def test_a_model_without_a_tower_says_so() -> None:
    with pytest.raises(ConfigError, match="message 0: part 0 is image; this model reads text alone"):
        Runtime.load(exported(), threads=1).generate(asked(picture(1), "a"), None)
