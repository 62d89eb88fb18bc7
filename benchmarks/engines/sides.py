"""What our benchmarks of speed compare: the builder's untouched graph, ours with the library and without, the Runtime.

Opens them, makes sure that they compute what they should before anything is timed, and gives turns for
`rounds.measure`. Knows nothing of rivals.
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
_CHECKED = 24  # tokens of the prompt that every side answers before it is timed
_NEAR = 0.2  # largest difference between library and function, of what the skill changes: int4 rounds activations, too


@dataclass(frozen=True)
class Asked:
    """What is compared, from the command line."""

    exported: Path
    skills: tuple[Path, ...]
    model: str
    threads: int
    spin: int | None
    operators: str  # "auto", "none" or a path
    work: Path
    opening: int = 0  # sessions are made in an order of its own in each

    @property
    def library(self) -> Path | None:
        """The native library; "auto" without one is None."""
        if self.operators == "none":
            return None
        return choose("auto" if self.operators == "auto" else Path(self.operators), "cpu").library

    def settings(self, library: Path | None = None) -> SessionSettings:
        return SessionSettings("cpu", self.threads, self.spin, library)


class Sides:
    """The graphs, open.

    Args:
        asked: What is compared.

    Raises:
        click.ClickException: The base of a graph of ours differs from the untouched graph, its skill does
            nothing, or library and function disagree.
        LimeError: A skill is not for this model.
    """

    def __init__(self, asked: Asked) -> None:
        self.asked = asked
        self.contract = read_contract(asked.exported)
        self.skills = [read_skill(path) for path in asked.skills]
        for skill in self.skills:
            check_skill(skill, self.contract, LIMITS)
        self.tokenizer = Tokenizer.from_file(str(asked.exported / "tokenizer.json"))
        self.model = backbone.resolve(asked.model)
        self.untouched = self._untouched()
        made = self._opened()
        self.plain = made.pop(UNTOUCHED)
        self.ours = {name: made[name] for name in (NATIVE, FUNCTION) if name in made}
        self._check()

    @property
    def precision(self) -> Precision:
        found: Any = self.contract.precision
        return cast(Precision, found)

    @property
    def best(self) -> str:
        """The library where there is one."""
        return next(iter(self.ours))

    def bank(self, count: int) -> tuple[Array, Array]:
        """The base and so many skills, the same ones over and over in memory of their own: rows [N, P] and ids [N]."""
        dtype = self.ours[self.best].bank_dtype
        assert dtype is not None  # it is one of ours
        again = itertools.islice(itertools.cycle(skill.tensors for skill in self.skills), count)
        return self.contract.table.bank(again, dtype)

    def runtime(self, directory: Path, name: str) -> Runtime:
        """A Runtime of that implementation of the operators, set up as the sessions are."""
        asked = self.asked
        library = asked.library if name == NATIVE else None
        return Runtime.load(directory, "cpu", asked.threads, spin=asked.spin, operators=library)

    def prompt(self, count: int) -> list[int]:
        """A prompt of so many tokens, the same in every run, that its text gives again."""
        return prompt(self.tokenizer, count)

    def _opened(self) -> dict[str, Graph]:
        asked = self.asked
        wanted = {UNTOUCHED: (self.untouched, asked.settings()), FUNCTION: (asked.exported, asked.settings())}
        if asked.library is not None:
            wanted[NATIVE] = asked.exported, asked.settings(asked.library)
        order = np.random.default_rng(asked.opening).permutation(list(wanted))
        return {str(name): Graph(*wanted[name]) for name in order}

    def _untouched(self) -> Path:
        """The builder's graph by the recipe of the export, made if `work` does not hold it."""
        target = self.asked.work / f"untouched-{self.precision}"
        if not (target / "genai_config.json").is_file():
            click.echo("building the untouched graph")
            with whole(target) as made:
                build_backbone(self.model, made, self.precision)
        return target

    def _check(self) -> None:
        ids, (bank, skills) = self.prompt(_CHECKED), self.bank(1)
        plain = _logits(self.plain, ids, {})
        found: dict[str, Array] = {}
        for name, graph in self.ours.items():
            if self.contract.precision != "fp16" and not np.array_equal(_logits(graph, ids, {}), plain):
                raise click.ClickException(
                    f"the base ({name}) is not the untouched graph bit for bit: export again, or empty --work"
                )
            found[name] = _logits(graph, ids, graphs.fed(bank, skills[1:]))
            if np.array_equal(found[name], plain):
                raise click.ClickException(f"{self.skills[0].manifest.name} ({name}) changes no logit")
        first, *others = found.values()
        if any(_size(first - other) > _NEAR * _size(first - plain) for other in others):
            raise click.ClickException("library and function do not compute the same")


def _size(array: Array) -> float:
    """Root of the mean square."""
    return float(np.sqrt(np.mean(np.square(array, dtype=np.float64))))


def _logits(graph: Graph, ids: Sequence[int], feeds: Feeds) -> Array:
    """After a prompt and one more token, [V]."""
    (step,) = graphs.decode(graph, ids, 1, feeds)
    step()
    logits: Array = step.logits[0, -1]
    return logits


def prompt(tokenizer: Tokenizer, count: int, seed: int = 0) -> list[int]:
    """Tokens of a text of common words that the tokenizer gives back as they are.

    Args:
        tokenizer: Of the model.
        count: How many.
        seed: Which.

    Raises:
        click.ClickException: The tokenizer has no such words.
    """
    words = sorted(number for token, number in tokenizer.get_vocab().items() if _is_word(token))
    rng = np.random.default_rng(seed)
    ids = rng.choice(words, count).tolist() if words else []
    if not ids or tokenizer.encode(tokenizer.decode(ids), add_special_tokens=False).ids != ids:
        raise click.ClickException("no prompt of whole words: the tokenizer is not byte-level BPE")
    return ids


def _is_word(token: str) -> bool:
    """Whether a byte-level token is a space and letters."""
    return token[:1] == "Ġ" and token[1:].isascii() and token[1:].isalpha()


def turn(run: Callable[[], float], steps: int, settle: int = 1) -> Callable[[], float]:
    """Mean seconds of some steps in a row; those before do not count: another variant's weights are in the caches."""

    def taken() -> float:
        for _ in range(settle):
            run()
        return sum(run() for _ in range(steps)) / steps

    return taken


@contextlib.contextmanager
def endless(exported: Path) -> Iterator[Path]:
    """The exported directory with another token as its end, so that answers are as long as they are asked to be."""
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
    """Put a changed copy of a JSON file in the place of a link to it."""
    document = json.loads(link.read_text("utf-8"))
    change(document)
    link.unlink()
    link.write_text(json.dumps(document), "utf-8")
