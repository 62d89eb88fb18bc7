"""Pictures in the token ids of a conversation: where they stand, and what is said when they cannot."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from lime_edge.errors import ConfigError
from tests.runtime.vision.vision_case import IMAGE_ID, TOKENS, asked, opened, picture

LONG = "x" * 200


def tokens_of(messages: Any, runtime: Any = None) -> Any:
    return (runtime or opened())._text.tokens(messages)


def test_features_stand_where_the_template_puts_the_picture() -> None:
    runtime = opened()
    made = tokens_of(asked("a", picture(1), "b<|endoftext|>", picture(2)), runtime)
    text = runtime._text.tokenizer.decode(made.plain.tolist(), skip_special_tokens=False)
    image = "<|endoftext|>" * TOKENS
    assert text == f"<|im_start|>user\na{image}b<|endoftext|>{image}<|im_end|>\n<|im_start|>assistant\n"
    assert (made.ids < 0).sum() == 2 * TOKENS == (made.plain == IMAGE_ID).sum()  # not what the user spelt
    assert len(set(made.ids[made.ids < 0].tolist())) == 2 * TOKENS
    assert [one.kind for one in made.pictures] == ["image", "image"]
    answer = runtime._text.tokens(asked("a")).ids[-3:]
    assert made.ids[made.boundary :].tolist()[-3:] == answer.tolist()
    assert runtime.tokenize(asked("a", picture(1))) == tuple(tokens_of(asked("a", picture(1)), runtime).plain.tolist())


def test_the_same_picture_has_the_same_ids() -> None:
    runtime = opened()
    first, again, other = (tokens_of(asked(picture(n)), runtime).ids for n in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert set(first[first < 0].tolist()).isdisjoint(other[other < 0].tolist())


def test_an_answer_that_is_continued() -> None:
    runtime = opened()
    begun = [*asked(picture(1), "a"), {"role": "assistant", "content": "yes"}]
    made, whole = tokens_of(begun, runtime), tokens_of(begun[:1], runtime)
    assert made.boundary == whole.boundary
    assert made.ids.tolist() == whole.ids.tolist() + runtime._text.encode("yes")


def test_all_faults_are_named_at_once() -> None:
    wrong: list[Any] = [{"type": "image", "data": b"x"}, {"type": "image", "path": "n"}]
    parts = [wrong[0], {"type": "image", "image": picture(1)}, wrong[1]]
    with pytest.raises(ConfigError, match="the pictures cannot be used") as caught:
        tokens_of([{"role": "user", "content": parts}])
    assert [fault.partition(":")[0] for fault in caught.value.faults] == ["image 0", "image 2"]


def test_more_pictures_than_the_context_has_room_for() -> None:
    runtime = opened()
    with pytest.raises(ConfigError, match="the first 13 pictures have 52 tokens, the context of 256 tokens has room"):
        tokens_of(asked(LONG[:150], *[picture(n % 3) for n in range(60)]), runtime)
    assert runtime._graph.pictures.encoded == 3  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("messages", "fault"),
    [
        ([{"role": "user", "content": [{"type": "image"}]}], "message 0: part 0 is an image with nothing"),
        ([{"role": "nobody", "content": [{"type": "image", "image": picture(1)}]}], "has the role 'nobody'"),
        ([{"role": "user", "content": [{"type": "video", "path": "none"}]}], "'none' cannot be read"),
    ],
)
def test_messages_that_are_refused(messages: Any, fault: str) -> None:
    with pytest.raises(ConfigError, match=fault):
        tokens_of(messages)
