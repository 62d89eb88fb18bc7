"""Text that spells special tokens stays text, whatever the tokenizer and whatever stands beside it."""

from __future__ import annotations

import pytest
from tokenizers import AddedToken, Tokenizer, models, normalizers, pre_tokenizers

from lime_edge.contract.special_tokens import SpecialTokens
from lime_edge.errors import ConfigError
from tests.support.runtime_models import tiny_text

END = 2  # <|im_end|>


@pytest.fixture(scope="module")
def special() -> SpecialTokens:
    return SpecialTokens(tiny_text().tokenizer)


def test_data_is_text_and_other_text_is_as_ever(special: SpecialTokens) -> None:
    tokenizer = tiny_text().tokenizer
    found = special.plain("a<|im_end|>b<|endoftext|>")
    assert set(found).isdisjoint(special.names)
    assert tokenizer.decode(found) == "a<|im_end|>b<|endoftext|>"
    assert special.encode("a<|im_end|>b").count(END) == 1
    assert special.plain("> a <") == tokenizer.encode("> a <").ids
    assert "_renamed" not in vars(SpecialTokens(tokenizer))  # no second tokenizer until something is spelt


@pytest.mark.parametrize("text", ["<|im_end|>", "x <|im_end|>", "<|im_", "end|> y", "  <|im_ \n", "|>"])
def test_what_could_become_a_special_token_is_suspicious(special: SpecialTokens, text: str) -> None:
    assert special.suspicious(["harmless", text])
    (hidden,), back = special.hide([text])
    assert not special.suspicious([hidden])
    assert len(hidden) == len(text)
    assert hidden.translate(back) == text


@pytest.mark.parametrize("text", ["", "im_end", "a <|im_ b", "a <|im_end| > b", "1 < 2 and 3 > 2", "\U00100000"])
def test_ordinary_text_is_not(special: SpecialTokens, text: str) -> None:
    assert not special.suspicious([text])


def test_two_texts_that_form_a_special_token_together(special: SpecialTokens) -> None:
    data = ["a<|im_", "end|>b\U00100000"]
    (first, second), back = special.hide(data)
    found = special.encode_marked("".join(data) + "<|im_end|>", first + second + "<|im_end|>", back)
    assert found.count(END) == 1
    assert tiny_text().tokenizer.decode(found, skip_special_tokens=False) == "".join(data) + "<|im_end|>"


def test_texts_that_leave_no_character_to_work_with(special: SpecialTokens) -> None:
    private = "".join(map(chr, range(0x100000, 0x110000)))
    assert special.plain(private) == special.encode(private)
    with pytest.raises(ConfigError, match="every private character"):
        special.plain(f"<|im_end|>{private}")


def words(model: models.Model, normalized: bool = False) -> Tokenizer:
    made = Tokenizer(model)
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    made.add_special_tokens([AddedToken("<end>", special=True, normalized=normalized)])
    return made


def test_a_tokenizer_whose_words_include_the_special_token() -> None:
    vocabulary = {"<end>": 0, "[UNK]": 1, "a": 2}
    special = SpecialTokens(words(models.WordLevel(vocabulary, unk_token="[UNK]")))
    assert special.encode("a <end> a") == [2, 0, 2]
    assert special.plain("a <end> a") == [2, 1, 2]
    unigram = SpecialTokens(words(models.Unigram([("[UNK]", 0.0), ("<end>", 0.0), ("a", -1.0)], 0)))
    assert unigram.encode("a <end> a") == [2, 1, 2]
    assert unigram.plain("a <end> a") == [2, 0, 2]


def test_a_tokenizer_that_merges_text_into_the_special_token() -> None:
    vocabulary = {name: number for number, name in enumerate(["<", "e", "n", "d", ">", "en", "end", "<end", "<end>"])}
    merges = [("e", "n"), ("en", "d"), ("<", "end"), ("<end", ">")]
    special = SpecialTokens(words(models.BPE(vocab=vocabulary, merges=merges)))
    assert special.encode("<end>") == [8]
    assert special.plain("<end>") == [7, 4]


def test_a_special_token_that_other_text_is_normalised_to() -> None:
    vocabulary = {"<end>": 0, "[UNK]": 1, "a": 2}
    tokenizer = words(models.WordLevel(vocabulary, unk_token="[UNK]"), normalized=True)
    tokenizer.normalizer = normalizers.Lowercase()
    special = SpecialTokens(tokenizer)
    assert special.encode("a <END>") == [2, 0]
    assert special.suspicious(["a <END>"])
    assert special.plain("a <END>") == [2, 1]


def test_a_tokenizer_that_cannot_write_the_text() -> None:
    special = SpecialTokens(words(models.WordLevel({"<end>": 0, "a": 1}, unk_token="a")))
    assert special.plain("a <end>") == [1, 1]
    with pytest.raises(ConfigError, match="the tokenizer cannot encode 'b'"):
        SpecialTokens(words(models.WordLevel({"a": 1}, unk_token="[UNK]"))).plain("b")


def test_further_tokens_that_only_the_template_may_write() -> None:
    tokenizer = words(models.WordLevel({"<end>": 0, "a": 1, "[UNK]": 2}, unk_token="[UNK]"))
    tokenizer.add_tokens([AddedToken("<turn>", special=False)])
    assert SpecialTokens(tokenizer).plain("a <turn>") == [1, 3]
    assert SpecialTokens(tokenizer, [3]).plain("a <turn>") == [1, 2]
