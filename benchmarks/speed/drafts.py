"""Decoding with drafts, against the builder's untouched graph one token at a time, on test requests.

    python -m benchmarks.speed.drafts EXPORTED --task json DATA/test.jsonl json.lime [--task ...] \\
        [--text translation DATA/test.jsonl] [--threads 1] [--rows 40] [--json FILE]

A round answers one request by every side, in an order that changes from round to round; a figure is the time of a token
behind the first one, which belongs to the prompt. *untouched* runs the builder's graph alone at the same positions, as
often as the drafted answer has tokens, with inputs and outputs bound in advance. The other sides are whole calls of
`Runtime.generate`, with sampling, text and all Python code:

- one a step: nothing is drafted, and any text may come;
- drafts: the skill's table and prompt lookup, and any text may come;
- drafts and form: what `generate` does by default, where the skill states a form of its answers.

`--task` sends bare requests to a skill, `--text` whole prompts to the base, which has no table. An answer that its form
decides with the prompt takes no step at all; such answers have no time and are counted apart.
"""

from __future__ import annotations

import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import click

from benchmarks.engines import graphs
from benchmarks.engines.graphs import Graph
from benchmarks.engines.sides import UNTOUCHED, untouched_graph
from benchmarks.harness.rounds import Group, Report, Variant, measure
from benchmarks.requests.data import Request, requests_of
from lime_edge import Runtime, read_skill
from lime_edge.exporters.genai_builder import Precision
from lime_edge.runtime.constraints.answer_spec import AnswerSpec
from lime_edge.runtime.model.session import SessionSettings
from lime_edge.runtime.types import Generation
from lime_edge.training import backbone

from .command import threads as counted

ONE, DRAFTS, FORM = "one a step", "drafts", "drafts and form"
_ANY = AnswerSpec("text")
_DIRECTORY = click.Path(exists=True, file_okay=False, path_type=Path)
_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@dataclass
class Counts:
    """Sums over the answers of one side."""

    tokens: int = 0
    seconds: float = 0.0
    drafted: int = 0
    accepted: int = 0
    without_steps: int = 0

    def add(self, tokens: int, seconds: float, found: Generation | None = None) -> None:
        """Count an answer; its tokens are those behind the first one."""
        self.tokens += tokens
        self.seconds += seconds
        if found is not None:
            self.drafted += found.timings.drafted_tokens
            self.accepted += found.timings.accepted_tokens


@dataclass
class Sides:
    """The untouched graph and the Runtime.

    Args:
        plain: The builder's graph.
        runtime: The exported model with the skills.
        tokens: Maximum number of tokens of an answer of the base.
    """

    plain: Graph
    runtime: Runtime
    tokens: int
    counts: dict[str, Counts] = field(default_factory=lambda: defaultdict(Counts))
    sizes: dict[Request, tuple[int, int]] = field(default_factory=dict)  # tokens of a prompt, steps of its answer

    def measure(self, title: str, requests: Sequence[Request], skill: str | None, form: bool) -> Group:
        """Answer requests by every side.

        Args:
            title: Title of the group.
            requests: Each is answered once by every side.
            skill: Name of the skill; None for the base.
            form: Whether the skill states a form of its answers.
        """
        sides: dict[str, dict[str, Any]] = {ONE: {"answers": _ANY, "speculate": False}, DRAFTS: {"answers": _ANY}}
        if form:
            sides[FORM] = {}
        variants = [Variant(UNTOUCHED, self._untouched(requests, skill))]
        variants += [
            Variant(name, self._answer(name, requests, skill, settings), (UNTOUCHED,))
            for name, settings in sides.items()
        ]
        for settings in sides.values():  # the skill's table and form are read when they are first used
            self._ask(requests[0], skill, settings)
        self.counts.clear()
        group = measure(title, variants, len(requests), warm=0)
        return replace(group, what={**group.what, "sides": self._summary()})

    def _answer(
        self, name: str, requests: Sequence[Request], skill: str | None, settings: dict[str, Any]
    ) -> Callable[[], float]:
        following = iter(requests)

        def turn() -> float:
            request = next(following)
            found = self._ask(request, skill, settings)
            if name == DRAFTS:
                self._remember(request, found)
            steps, seconds = found.timings.new_tokens - 1, found.timings.decode_seconds
            self.counts[name].add(steps, seconds, found)
            self.counts[name].without_steps += found.timings.drafted_tokens == 0 and seconds < 1e-3
            return seconds / max(1, steps)

        return turn

    def _untouched(self, requests: Sequence[Request], skill: str | None) -> Callable[[], float]:
        following = iter(requests)

        def turn() -> float:
            request = next(following)
            if request not in self.sizes:
                self._remember(request, self._ask(request, skill, {"answers": _ANY}))
            prompt, steps = self.sizes[request]
            ids = [1] * prompt  # the time of a step does not depend on the tokens before it
            runs = graphs.decode(self.plain, ids, 1, {}, steps)
            seconds = sum(run() for run in runs)
            self.counts[UNTOUCHED].add(steps, seconds)
            return seconds / steps

        return turn

    def _remember(self, request: Request, found: Generation) -> None:
        self.sizes[request] = found.timings.prompt_tokens, max(1, found.timings.new_tokens - 1)

    def _ask(self, request: Request, skill: str | None, settings: dict[str, Any]) -> Generation:
        if skill is not None:
            found: Generation = self.runtime.generate(request.bare, skill, **settings)
        else:
            message = [{"role": "user", "content": request.full}]
            found = self.runtime.generate(message, None, max_new_tokens=self.tokens, **settings)
        return found

    def _summary(self) -> dict[str, Any]:
        """For every side tokens a second over all answers, relative to the untouched graph, and what was drafted."""
        speeds = {name: one.tokens / one.seconds for name, one in self.counts.items() if one.seconds}
        return {
            name: {
                "tokens_per_second": speeds.get(name),
                "times_untouched": speeds[name] / speeds[UNTOUCHED] if name in speeds else None,
                "tokens": one.tokens,
                "drafted": one.drafted,
                "accepted": one.accepted,
                "answers_without_steps": one.without_steps,
            }
            for name, one in self.counts.items()
        }


def groups(
    sides: Sides, tasks: Sequence[tuple[str, Path, Path]], texts: Sequence[tuple[str, Path]], rows: int, words: str
) -> Iterator[Group]:
    """The groups of all tasks and texts, each with its own requests."""
    for name, data, skill in tasks:
        sides.runtime.load_skill(skill, name)
        form = read_skill(skill).manifest.interface.answers.kind != "text"
        yield sides.measure(f"{name}, {words}", requests_of(name, data, rows), name, form)
    for name, data in texts:
        yield sides.measure(f"{name}, base, {words}", requests_of(name, data, rows), None, form=False)


@click.command()
@click.argument("exported", type=_DIRECTORY)
@click.option("--task", "tasks", multiple=True, type=(str, _FILE, _FILE), metavar="NAME DATA SKILL")
@click.option("--text", "texts", multiple=True, type=(str, _FILE), metavar="NAME DATA", help="Answered by the base.")
@click.option("-m", "--model", default=backbone.DEFAULT, show_default=True, help="The backbone.")
@click.option("--rows", default=40, show_default=True, type=click.IntRange(1), help="Requests of each task.")
@click.option("--tokens", default=64, show_default=True, type=click.IntRange(2), help="Tokens of the base's answers.")
@click.option("--threads", default=1, show_default=True, type=click.IntRange(1))
@click.option("--work", type=click.Path(path_type=Path), help="Folder that keeps the untouched graph for later runs.")
@click.option("--json", "json_path", type=click.Path(path_type=Path), help="Also write the results to this JSON file.")
def main(
    exported: Path,
    tasks: Sequence[tuple[str, Path, Path]],
    texts: Sequence[tuple[str, Path]],
    model: str,
    rows: int,
    tokens: int,
    threads: int,
    work: Path | None,
    json_path: Path | None,
) -> None:
    """Measure decoding with drafts."""
    if not tasks and not texts:
        raise click.UsageError("expected a --task or a --text")
    with tempfile.TemporaryDirectory() as scratch:
        runtime = Runtime.load(exported, "cpu", threads)
        precision = cast(Precision, runtime.contract.precision)
        graph = untouched_graph(work or Path(scratch), backbone.resolve(model), precision)
        plain = Graph(graph, SessionSettings("cpu", threads))
        sides = Sides(plain, runtime, tokens)
        report = Report("drafts", {"threads": threads, "rows": rows, "tokens": tokens})
        for group in groups(sides, tasks, texts, rows, counted(threads)):
            report.add(group)
            report.write(json_path)  # what was measured stays if the next group is interrupted
            for name, one in group.what["sides"].items():
                if one["times_untouched"] is not None:
                    click.echo(
                        f"  {name}: {one['tokens_per_second']:.1f} tokens a second, {one['times_untouched']:.2f} times "
                        f"untouched; {one['accepted']} of {one['drafted']} drafted accepted; "
                        f"{one['answers_without_steps']} answers without a step"
                    )


if __name__ == "__main__":
    main()
