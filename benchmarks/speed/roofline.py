"""Roofline of a decoding step: the bytes it must read, the operations it must do, and the time it takes.

    python -m benchmarks.speed.roofline EXPORTED SKILL.lime... [--threads 1] [--json FILE]

Counts the minimal work of one step of the exported graph: every weight once, the keys and values of the context, and
with a skill the shared adapter and the skill's row. Measures the machine's peak rates with roofline.cpp, which it
compiles first, and the step itself. Activations stay in the processor's caches and are not counted. The bound assumes
that reading and computing overlap fully.
"""

from __future__ import annotations

import math
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import click
import numpy as np
import onnx_ir as ir
from rich.console import Console
from rich.table import Table

from benchmarks.engines import graphs
from benchmarks.engines.graphs import Graph, fed
from benchmarks.engines.sides import UNTOUCHED, Sides, turn
from benchmarks.harness.rounds import Variant, measure, write
from lime_edge.contract.model import ModelContract
from lime_edge.runtime.native.compiler import find_compiler

from .command import comparing, numbers, options, threads

_SOURCE = Path(__file__).with_name("roofline.cpp")
_LARGE = 1000  # MB: more than any cache holds
_ROUGHLY = 10  # MB: sizes of working sets are rounded up to multiples of this
WEIGHTS, CACHE, SHARED, ROW, LOGITS = "weights", "keys and values", "shared adapter", "skill's rows", "logits"


@dataclass
class Work:
    """The minimal work of one step."""

    bytes: dict[str, int] = field(default_factory=dict)  # bytes read or written, by kind
    byte_operations: int = 0  # operations of integer dot products
    float_operations: int = 0

    def moves(self, what: str, count: float) -> None:
        """Add bytes of one kind."""
        self.bytes[what] = self.bytes.get(what, 0) + int(count)

    @property
    def total(self) -> int:
        """Bytes of all kinds."""
        return sum(self.bytes.values())


@dataclass(frozen=True)
class Machine:
    """Peak rates of the machine, all threads together."""

    read: dict[int, float]  # GB/s by working set in MB
    floats: float  # Gop/s; a multiply-add counts as two operations
    bytes: float  # Gop/s of byte dot products; 0 if the processor lacks the instruction

    def seconds(self, work: Work) -> dict[str, float]:
        """Lower bounds of the time for reading and for computing."""
        rate = self.read[min(self.read, key=lambda size: abs(size - work.total / 1e6))]
        byte_rate = self.bytes or self.floats
        compute = work.byte_operations / byte_rate + work.float_operations / self.floats
        return {"reading": work.total / rate / 1e9, "computing": compute / 1e9}


@click.command()
@options
@click.option("--contexts", default="32,256,1024", show_default=True, callback=numbers, help="Tokens before the step.")
@click.option("--rows", default="1,8", show_default=True, callback=numbers, help="Rows of a batch.")
@click.option("--rounds", default=50, show_default=True, type=click.IntRange(1))
def main(contexts: list[int], rows: list[int], rounds: int, json_path: Path | None, **given: Any) -> None:
    """Compare decoding steps with their lower bound."""
    with comparing("roofline", max(contexts) + 8, given, rounds=rounds) as comparison:
        sides, report = comparison.sides, comparison.report
        model = ir.load(sides.asked.exported / "model.onnx")
        cases = [(context, count) for count in rows for context in contexts]
        totals = [work_of(model, sides.contract, sides.plain.head, *case).total for case in cases]
        sizes = {_ROUGHLY * -(-total // (1_000_000 * _ROUGHLY)) for total in totals}
        machine = measure_machine(sides.asked.threads, sorted({*sizes, _LARGE}))
        lines = []
        for context, count in cases:
            lines += _compare(sides, model, machine, context, count, rounds)
        _print(lines, machine, sides.asked.threads)
        write(json_path, asdict(report) | {"limits": asdict(machine), "lines": lines})


def work_of(
    model: ir.Model, contract: ModelContract, head: int, context: int, rows: int, skills: Sequence[int] = ()
) -> Work:
    """Count the minimal work of a decoding step.

    Args:
        model: An exported graph.
        contract: Its lime.json.
        head: Size of an attention head, which the graph does not state.
        context: Positions that the cache already holds.
        rows: Number of rows, B.
        skills: Number of experts of each distinct skill that the rows use; empty for the base and for a graph without
            skills.
    """
    work = Work()
    for node in model.graph:
        if node.op_type == "MatMulNBits":
            size = node.attributes["K"].as_int() * node.attributes["N"].as_int()
            work.moves(WEIGHTS, _constants(node))
            work.byte_operations += 2 * size * rows
        elif node.op_type == "MatMul":
            work.moves(WEIGHTS, _constants(node))
            work.float_operations += 2 * rows * sum(_elements(value) for value in node.inputs)
        elif node.op_type == "GroupQueryAttention":
            _attend(work, node, head, context, rows)
        elif node.domain == "ai.lime" and skills:
            _adapt(work, node, rows, skills)
        elif "LayerNormalization" in node.op_type:
            work.moves(WEIGHTS, _constants(node))
    vocabulary = next(value for value in model.graph.outputs if value.name == "logits").shape
    assert vocabulary is not None  # the builder writes every output's shape
    work.moves(LOGITS, 4 * rows * _size(vocabulary, -1))
    return work


def _attend(work: Work, node: ir.Node, head: int, context: int, rows: int) -> None:
    """Attention: read the keys and values of the context; multiply them by every head's query and weights."""
    past = node.inputs[3]
    assert past is not None  # the graph has a cache
    assert past.shape is not None
    assert past.dtype is not None
    kept = rows * context * _size(past.shape, 1) * head
    work.moves(CACHE, 2 * kept * past.dtype.itemsize)
    work.float_operations += 4 * rows * node.attributes["num_heads"].as_int() * context * head


def _adapt(work: Work, node: ir.Node, rows: int, skills: Sequence[int]) -> None:
    """Adapted module: x A B, if expert vectors or routing need it, and the row's mixed vectors on every output."""
    bank = next(value for value in node.inputs if value is not None and value.name == "lime.bank")
    assert bank.dtype is not None
    parts = [int(size) for size in node.attributes["parts"].as_ints()]
    kinds = node.attributes["kinds"].as_string().split(",")
    fields = sum(kind != "rank" for kind in kinds)
    vectors = fields * sum(parts)  # numbers of one expert
    asked = "expert" in kinds or max(skills) > 1
    work.moves(SHARED, _constants(node) * asked)
    work.moves(ROW, sum(skills) * vectors * bank.dtype.itemsize)
    shared = sum(_elements(value) for value in node.inputs if value is not None and value is not bank)
    work.float_operations += rows * (2 * shared * asked + 2 * max(skills) * vectors)


def _size(shape: ir.Shape, axis: int) -> int:
    size = shape[axis]
    if not isinstance(size, int):
        raise click.ClickException(f"the graph does not state the size of dimension {size}; expected a number")
    return size


def _constants(node: ir.Node) -> int:
    """Bytes of a node's constant weights, without bank and ids, which are graph inputs."""
    held = [value for value in node.inputs if value is not None and value.const_value is not None]
    return sum(value.const_value.nbytes for value in held if not value.is_graph_input() and value.const_value)


def _elements(value: ir.Value | None) -> int:
    if value is None or value.const_value is None or value.is_graph_input():
        return 0
    return math.prod(value.const_value.shape.numpy())


def measure_machine(count: int, megabytes: Sequence[int]) -> Machine:
    """Compile roofline.cpp for this processor and run it with `count` threads.

    Raises:
        CompilerError: No C++ compiler is installed.
    """
    with tempfile.TemporaryDirectory() as scratch:
        program = str(Path(scratch) / "roofline")
        flags = ["-std=c++17", "-O3", "-march=native", "-pthread"]
        subprocess.run([*find_compiler(), *flags, str(_SOURCE), "-o", program], check=True)
        command = [program, str(count), *map(str, megabytes)]
        said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    found = {name: float(value) for name, value in (line.split() for line in said.splitlines())}
    return Machine({size: found[f"read_{size}"] for size in megabytes}, found["float"], found["byte"])


def _compare(
    sides: Sides, model: ir.Model, machine: Machine, context: int, rows: int, rounds: int
) -> list[dict[str, Any]]:
    """Bound and time of the untouched graph, of one skill for all rows, and of one skill for each row."""
    (bank, skills), ours = sides.bank(rows), sides.ours[sides.best]
    experts = np.where(skills < 0, sides.contract.routing.experts, 1)[1:].tolist()  # of every skill
    cases: dict[str, tuple[Graph, Mapping[str, Any], list[int]]] = {
        UNTOUCHED: (sides.plain, {}, []),
        f"one skill ({sides.best})": (ours, fed(bank, skills[1:2].repeat(rows)), experts[:1]),
    }
    if rows > 1:
        cases[f"{rows} skills ({sides.best})"] = (ours, fed(bank, skills[1:]), experts)
    ids = sides.prompt(context)
    variants = [
        Variant(name, turn(graphs.decode(graph, ids, rows, feeds)[0], 3)) for name, (graph, feeds, _) in cases.items()
    ]
    group = measure(f"{rows} rows after {context:,} tokens", variants, rounds)
    lines = []
    for name, (_, _, used) in cases.items():
        work = work_of(model, sides.contract, sides.plain.head, context, rows, used)
        least, taken = machine.seconds(work), group[name].ms.median / 1e3
        shares = {"bound": max(least.values()), "share": max(least.values()) / taken, "taken": taken}
        lines.append({"variant": name, "context": context, "rows": rows, **asdict(work), **least, **shares})
    return lines


def _print(lines: Sequence[Mapping[str, Any]], machine: Machine, count: int) -> None:
    rates = ", ".join(f"{rate:.1f} GB/s from {size} MB" for size, rate in machine.read.items())
    title = f"{threads(count)}: {rates}; {machine.bytes:.0f} byte and {machine.floats:.0f} float Gop/s"
    headers = (
        "rows",
        "context",
        "variant",
        "MB",
        "skill's MB",
        "Mop",
        "reading ms",
        "computing ms",
        "taken ms",
        "share",
    )
    table = Table(*headers, title=title, title_justify="left")
    for line in lines:
        own = sum(line["bytes"].get(what, 0) for what in (SHARED, ROW)) / 1e6
        operations = (line["byte_operations"] + line["float_operations"]) / 1e6
        times = [f"{1e3 * line[key]:.2f}" for key in ("reading", "computing", "taken")]
        total = sum(line["bytes"].values()) / 1e6
        cells = [f"{total:.1f}", f"{own:.2f}", f"{operations:.0f}", *times, f"{line['share']:.0%}"]
        table.add_row(str(line["rows"]), f"{line['context']:,}", line["variant"], *cells)
    Console(width=140).print(table)


if __name__ == "__main__":
    main()
