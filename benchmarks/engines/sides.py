"""What the speed benchmarks compare: the builder's untouched graph, our graph with and without library, the Runtime.

Opens them, verifies before any timing that they compute the right logits, and makes turns for `rounds.measure`.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import click
import numpy as np
from tokenizers import Tokenizer

from lime_edge import Runtime, read_skill
from lime_edge.contract.model import read_contract
from lime_edge.exporters.genai_builder import Precision, build_backbone
from lime_edge.runtime.model.session import SessionSettings
from lime_edge.runtime.native.operators import choose
from lime_edge.skills.compatibility import LIMITS, check_skill
from lime_edge.training import backbone

from . import graphs
from .graphs import Array, Feeds, Graph
from .rival_files import whole

UNTOUCHED, NATIVE, FUNCTION = "untouched", "native", "function"
_CHECKED = 24  # tokens of the prompt that every graph must answer before it is timed
_NEAR = 0.2  # allowed difference of library and function, relative to the skill's effect: int4 rounds activations, too


@dataclass(frozen=True)
class Asked:
    """What to compare, from the command line."""

    exported: Path
    skills: tuple[Path, ...]
    model: str
    threads: int
    spin: int | None
    operators: str  # "auto", "none" or a path
    work: Path
    opening: int = 0  # number of this opening; it seeds the order in which sessions are created

    @property
    def library(self) -> Path | None:
        """The native library; None for "none", and for "auto" where no library is installed."""
        if self.operators == "none":
            return None
        return choose("auto" if self.operators == "auto" else Path(self.operators), "cpu").library

    def settings(self, library: Path | None = None) -> SessionSettings:
        """Settings of a session with this library."""
        return SessionSettings("cpu", self.threads, self.spin, library)


class Sides:
    """The opened and verified graphs.

    Args:
        asked: What to compare.

    Raises:
        click.ClickException: The base of one of our graphs differs from the untouched graph, a skill changes
            nothing, or library and function disagree.
        LimeError: A skill does not fit this model.
    """

    def __init__(self, asked: Asked) -> None:
        self.asked = asked
        self.contract = read_contract(asked.exported)
        self.skills = [read_skill(path) for path in asked.skills]
        for skill in self.skills:
            check_skill(skill, self.contract, LIMITS)
        self.tokenizer = Tokenizer.from_file(str(asked.exported / "tokenizer.json"))
        self.model = backbone.resolve(asked.model)
        self.untouched = untouched_graph(asked.work, self.model, self.precision)
        made = self._opened()
        self.plain = made.pop(UNTOUCHED)
        self.ours = {name: made[name] for name in (NATIVE, FUNCTION) if name in made}
        self._check()

    @property
    def precision(self) -> Precision:
        """Precision of the exported model."""
        found: Any = self.contract.precision
        return cast(Precision, found)

    @property
    def best(self) -> str:
        """The fastest implementation of the operators: the library if it is installed."""
        return next(iter(self.ours))

    def bank(self, count: int) -> tuple[Array, Array]:
        """A bank of the base and `count` skills: rows [N, P] and ids [N].

        The given skills repeat, but each repetition has memory of its own.
        """
        dtype = self.ours[self.best].bank_dtype
        assert dtype is not None  # our graphs have a bank
        again = itertools.islice(itertools.cycle(skill.tensors for skill in self.skills), count)
        return self.contract.table.bank(again, dtype)

    def runtime(self, directory: Path, name: str) -> Runtime:
        """A Runtime with one implementation of the operators and the sessions' settings; it reads every prompt anew."""
        asked = self.asked
        library = asked.library if name == NATIVE else None
        return Runtime.load(directory, "cpu", asked.threads, spin=asked.spin, operators=library, prefix_cache=0)

    def prompt(self, count: int) -> list[int]:
        """A prompt of `count` tokens, the same in every run; see `prompt` below."""
        return prompt(self.tokenizer, count)

    def _opened(self) -> dict[str, Graph]:
        asked = self.asked
        wanted = {UNTOUCHED: (self.untouched, asked.settings()), FUNCTION: (asked.exported, asked.settings())}
        if asked.library is not None:
            wanted[NATIVE] = asked.exported, asked.settings(asked.library)
        order = np.random.default_rng(asked.opening).permutation(list(wanted))
        return {str(name): Graph(*wanted[name]) for name in order}

    def _check(self) -> None:
        ids, (bank, skills) = self.prompt(_CHECKED), self.bank(1)
        plain = _logits(self.plain, ids, {})
        found: dict[str, Array] = {}
        for name, graph in self.ours.items():
            if self.contract.precision != "fp16" and not np.array_equal(_logits(graph, ids, {}), plain):
                raise click.ClickException(
                    f"the base ({name}) differs from the untouched graph; expected the same bits: "
                    "export again, or empty the --work folder"
                )
            found[name] = _logits(graph, ids, graphs.fed(bank, skills[1:]))
            if np.array_equal(found[name], plain):
                raise click.ClickException(f"skill {self.skills[0].manifest.name} ({name}) changes no logit")
        first, *others = found.values()
        if any(_size(first - other) > _NEAR * _size(first - plain) for other in others):
            raise click.ClickException("the native library and the graph's functions compute different logits")


def untouched_graph(work: Path, model: Path, precision: Precision) -> Path:
    """Folder of the builder's graph by the recipe of the export, built unless `work` already holds it."""
    target = work / f"untouched-{precision}"
    if not (target / "genai_config.json").is_file():
        click.echo("building the untouched graph")
        with whole(target) as made:
            build_backbone(model, made, precision)
    return target


def _size(array: Array) -> float:
    """Root mean square."""
    return float(np.sqrt(np.mean(np.square(array, dtype=np.float64))))


def _logits(graph: Graph, ids: Sequence[int], feeds: Feeds) -> Array:
    """Logits after a prompt and one more token, [V]."""
    (step,) = graphs.decode(graph, ids, 1, feeds)
    step()
    logits: Array = step.logits[0, -1]
    return logits


def prompt(tokenizer: Tokenizer, count: int, seed: int = 0) -> list[int]:
    """Random whole-word tokens whose text the tokenizer encodes to the same tokens.

    Args:
        tokenizer: The model's tokenizer.
        count: Number of tokens.
        seed: Seed of the choice.

    Raises:
        click.ClickException: The tokenizer is not byte-level BPE.
    """
    words = sorted(number for token, number in tokenizer.get_vocab().items() if _is_word(token))
    rng = np.random.default_rng(seed)
    ids = rng.choice(words, count).tolist() if words else []
    if not ids or tokenizer.encode(tokenizer.decode(ids), add_special_tokens=False).ids != ids:
        raise click.ClickException("no prompt of whole words: the tokenizer is not byte-level BPE")
    return ids


def _is_word(token: str) -> bool:
    """Whether a byte-level token is a space followed by letters."""
    return token[:1] == "Ġ" and token[1:].isascii() and token[1:].isalpha()


def turn(run: Callable[[], float], steps: int, settle: int = 1) -> Callable[[], float]:
    """A turn: the mean seconds of `steps` consecutive runs.

    `settle` uncounted runs come first, because another variant's weights are in the processor's caches.
    """

    def taken() -> float:
        for _ in range(settle):
            run()
        return sum(run() for _ in range(steps)) / steps

    return taken


@contextlib.contextmanager
def endless(exported: Path) -> Iterator[Path]:
    """A view of an exported directory with another end token, so that answers always have the requested length."""
    with tempfile.TemporaryDirectory() as scratch:
        for path in exported.iterdir():
            (Path(scratch) / path.name).symlink_to(path.absolute())
        vocabulary = Tokenizer.from_file(str(exported / "tokenizer.json"))
        last = vocabulary.get_vocab_size() - 1
        _rewrite(Path(scratch) / "genai_config.json", lambda config: config["model"].update(eos_token_id=last))
        name = vocabulary.id_to_token(last)
        _rewrite(Path(scratch) / "tokenizer_config.json", lambda config: config.update(eos_token=name))
        yield Path(scratch)


def _rewrite(link: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Replace a link to a JSON file by a changed copy."""
    document = json.loads(link.read_text("utf-8"))
    change(document)
    link.unlink()
    link.write_text(json.dumps(document), "utf-8")
