"""Makes the constraint of each row from an answer specification; compiled specifications are cached."""

from __future__ import annotations

from functools import cached_property, lru_cache
from typing import TYPE_CHECKING

from lime_edge.errors import ConfigError, LimeError
from lime_edge.runtime.text.prompts import Text

from .answer_spec import AnswerSpec
from .choice_trie import ChoiceConstraint, ChoiceTrie, encode
from .constraint import Constraint
from .grammar import Grammar, open_tokenizer

if TYPE_CHECKING:
    from llguidance import LLTokenizer

_CACHED = 32  # compiled specifications; each of llguidance's can take up to about 20 MB


class AnswerConstraints:
    """The constraints on answers of one model. Safe to use from several threads.

    Args:
        text: Tokenizer and end-of-turn tokens of the model directory.
        vocabulary: V, the number of logits of the graph.
    """

    def __init__(self, text: Text, vocabulary: int) -> None:
        self._text, self._vocabulary = text, vocabulary
        self._compiled = lru_cache(_CACHED)(self._compile)

    def constrain(self, spec: AnswerSpec, error: type[LimeError] = ConfigError) -> Constraint | None:
        """The constraint of one new row; None for free text.

        A model's first schema, expression or grammar takes about half a second, later ones milliseconds, cached ones
        microseconds.

        Args:
            spec: What the answer must be.
            error: Class of the error about the specification: SkillFormatError if it is a skill's own.

        Raises:
            LimeError: Of class `error`: the specification does not compile, nothing matches it, or the model's
                tokenizer cannot write it.
            MissingExtraError: A schema, expression or grammar needs the extra `constrain`.
        """
        if spec.kind == "text":
            return None
        try:
            compiled = self._compiled(spec)
        except ConfigError as fault:
            raise error(fault.message, fault.faults) from fault
        if isinstance(compiled, ChoiceTrie):
            return ChoiceConstraint(compiled, self._vocabulary, self._text.end_id)
        return compiled.start()

    def _compile(self, spec: AnswerSpec) -> ChoiceTrie | Grammar:
        if spec.kind == "choices":
            return ChoiceTrie(encode(spec.value, self._text))
        return Grammar(spec, self._tokenizer, self._text, self._vocabulary)

    @cached_property
    def _tokenizer(self) -> LLTokenizer:
        return open_tokenizer(self._text, self._vocabulary)
