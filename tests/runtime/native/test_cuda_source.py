"""The CUDA source of the operator, compiled for the host and run there. It has not been run on a GPU.

`cuda_on_host/` replaces CUDA: g++ compiles the unchanged sources, and every thread of a block becomes a fiber. The
library registers with ONNX Runtime's CPU provider, so that the calls of ONNX Runtime's API are tested, too. If nvcc is
installed, a test builds the library for GPUs with the command in docs/install.md. No test measures speed.
"""

from __future__ import annotations

import ctypes
import re
import shlex
import shutil
import subprocess
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lime_edge.contract.routing import MODES, Routing
from lime_edge.runtime.native import operators
from lime_edge.runtime.native.compiler import compile_operators
from tests.runtime.native.test_operators_parity import cases, skill_ids
from tests.support.operator_case import ALL, BAD_IDS, TOLERANCE, Array, Case
from tests.support.paths import CUDA_ON_HOST as ON_HOST
from tests.support.paths import ROOT

SOURCES = ROOT / "runtime" / "native" / "cuda"
BUILDS = ["host", "nvcc"] if shutil.which("nvcc") else ["host"]

InvalidArgument = ort.capi.onnxruntime_pybind11_state.InvalidArgument


class OnHost:
    """The host build, and the settings of its next launches."""

    folders: ClassVar[list[TemporaryDirectory[str]]] = []  # deleted when the process ends

    def __init__(self, source: str, threads: int) -> None:
        self.folders.append(TemporaryDirectory(prefix="lime-cuda-on-host-"))
        strict = ("-Wall", "-Wextra", "-Werror", "-Wno-unknown-pragmas")
        flags = ("-I", str(ON_HOST), f"-DLIME_CUDA_THREADS={threads}", *strict)
        self.path = compile_operators(Path(self.folders[-1].name), ON_HOST / source, flags)
        self.calls = ctypes.CDLL(str(self.path))

    def set(self, order: int = 0, multiprocessors: int = 1, capturing: bool = False) -> None:
        """`order` 0 runs threads and blocks in numerical order; any other value seeds a random order."""
        self.calls.OnHost(order, multiprocessors, capturing)

    def counts(self) -> tuple[int, int]:
        """Launches and blocks so far."""
        self.calls.OnHostLaunches.restype = self.calls.OnHostBlocks.restype = ctypes.c_long
        return self.calls.OnHostLaunches(), self.calls.OnHostBlocks()


@cache
def on_host(threads: int = 64) -> OnHost:
    """Blocks of 64 threads are two warps, and faster on the host than the 256 threads of the library for GPUs."""
    return OnHost("library.cpp", threads)


def run(case: Case, x: Array, y: Array, ids: Array, past: Array | None = None, **how: Any) -> Any:
    """Outputs of a new session that runs the kernel on the host."""
    on_host().set(**how)
    return case.run(case.session(on_host().path), x, y, ids, past)


@settings(max_examples=120, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(cases(), st.integers(0, 9), st.sampled_from([1, 8, 100]))
def test_equals_the_definition(drawn: tuple[Case, int, int, str], order: int, multiprocessors: int) -> None:
    case, rows, tokens, how = drawn
    x, y = case.data(rows, tokens)
    ids = skill_ids(case, how, rows, tokens)
    out = run(case, x, y, ids, order=order, multiprocessors=multiprocessors)
    function = case.run(case.session(), x, y, ids)
    expected, clear = case.expected(x, ids)
    assert np.abs(out[0] - expected)[clear].max(initial=0) <= TOLERANCE * np.abs(expected).max()
    base = np.broadcast_to(ids, (rows, tokens)) == 0
    assert out[0][base].tobytes() == case.base(y)[base].tobytes()
    if case.routing.window > 1:
        assert np.abs(out[1] - function[1]).max() <= TOLERANCE


@pytest.mark.parametrize("experts", [33, 64])
@pytest.mark.parametrize("mode", MODES)
def test_more_experts_than_a_warp_has_lanes(mode: Any, experts: int) -> None:
    case = Case(Routing(experts, mode=mode, window=3, top_k=20), ALL, sizes=(90, 70), ranks=(40, 70), seed=experts)
    x, y = case.data(2, 9)
    ids = skill_ids(case, "tokens", 2, 9)
    expected, clear = case.expected(x, ids)
    assert clear.mean() > 0.5
    assert np.abs(run(case, x, y, ids)[0] - expected)[clear].max() <= TOLERANCE * np.abs(expected).max()


def test_ranks_and_depths_beyond_one_stage() -> None:
    """More values of x than a block holds at a time; too many ranks for the shared memory of eight tokens."""
    for inputs, rank, rows in ((5000, 3, 1), (600, 9, 12), (70, 1500, 10)):
        case = Case(Routing(experts=2), ALL, inputs, (40,), (rank,))
        x, y = (values / inputs for values in case.data(rows, 1))
        expected, _ = case.expected(x, np.array([[1]]))
        out = run(case, x, y, np.array([[1]]))[0]
        assert np.abs(out - expected).max() <= TOLERANCE * np.abs(expected).max()


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("window", [1, 3])
def test_half_precision_activations(mode: Any, window: int) -> None:
    case = Case(
        Routing(experts=4, mode=mode, window=window), ALL, 70, (33, 18), (2, 3), dtype=ir.DataType.FLOAT16, seed=window
    )
    x, y = case.data(2, 7)
    ids = skill_ids(case, "tokens", 2, 7)
    out = run(case, x, y, ids)[0]
    expected, _ = case.expected(x, ids)
    if mode.endswith("soft"):  # soft selection is continuous, so rounding cannot change it much
        assert np.abs(out - expected).max() < 4e-3 * np.abs(expected).max()
    assert out[ids == 0].tobytes() == y.astype(np.float16)[ids == 0].tobytes()
    tiny = run(case, np.full_like(x, 1e-7), np.full_like(y, 1e-7), ids)[0]
    assert np.isfinite(tiny).all()


def test_the_blocks_that_a_gpu_gets() -> None:
    """Blocks of 256 threads, which are eight warps, as in the library for GPUs."""
    build = on_host(threads=256)
    for seed in range(6):
        case = Case(Routing(experts=1 + seed, window=1 + seed % 2), ALL, 90, (300, 20), (8, 33), seed=seed)
        x, y = case.data(2, 3 + seed)
        ids = skill_ids(case, "tokens", 2, 3 + seed)
        build.set(order=seed, multiprocessors=30)
        out = case.run(case.session(build.path), x, y, ids)[0]
        expected, clear = case.expected(x, ids)
        assert np.abs(out - expected)[clear].max() <= TOLERANCE * np.abs(expected).max()


@pytest.mark.parametrize("window", [1, 4])
def test_neither_order_nor_slices_change_a_bit(window: int) -> None:
    """If a barrier were missing, the result would depend on the order of threads."""
    case = Case(Routing(experts=5, mode="soft", window=window), ALL, 300, (200, 70), (8, 5), skills=4, seed=2)
    x, y = case.data(3, 11)
    ids = skill_ids(case, "tokens", 3, 11)
    first = run(case, x, y, ids)
    for order, multiprocessors in ((1, 1), (2, 100), (3, 7)):
        again = run(case, x, y, ids, order=order, multiprocessors=multiprocessors)
        assert [values.tobytes() for values in again] == [values.tobytes() for values in first]


@pytest.mark.parametrize("dtype", [ir.DataType.FLOAT, ir.DataType.FLOAT16])
def test_a_token_is_the_same_in_any_company(dtype: ir.DataType) -> None:
    """Calls token by token, with the evidence of earlier tokens fed back, give the same bits as one call."""
    case = Case(Routing(experts=4, window=3, mode="auto_soft"), ALL, 300, (20, 9), (3, 2), seed=5, dtype=dtype)
    x, y = case.data(3, 12)
    ids = np.array([[1], [2], [0]])
    whole, evidence = run(case, x, y, ids)
    past, columns = case.no_past(3), len(case.table.modules) * 4
    session = case.session(on_host().path)
    for t in range(12):
        out, now = case.run(session, x[:, t : t + 1], y[:, t : t + 1], ids, past)
        assert (out[:, 0].tobytes(), now[:, 0].tobytes()) == (whole[:, t].tobytes(), evidence[:, t].tobytes())
        row = np.zeros((3, 1, columns + 1), past.dtype)
        row[..., columns - now.shape[2] : columns], row[..., -1] = now, 1
        past = np.concatenate([past[:, 1:], row], axis=1)


def test_the_base_costs_only_the_launch() -> None:
    """Only y is read: NaN in x does not reach the output."""
    case = Case(Routing(experts=4), ALL, sizes=(40, 30), ranks=(3, 2))
    x, y = case.data(2, 20)
    y[0, 0, :3] = -0.0, np.nan, np.inf
    out = run(case, np.full_like(x, np.nan), y, np.array([[0]]))[0]
    assert out.tobytes() == y.astype(np.float32).tobytes()


@pytest.mark.parametrize(
    ("rows", "tokens", "shape", "launches"),
    [(1, 1, (1, 1), 1), (8, 1, (8, 1), 1), (1, 300, (1, 1), 1), (4, 64, (4, 1), 1), (2, 150, (2, 150), 2)],
    ids=str,
)
def test_one_launch_for_all_parts(rows: int, tokens: int, shape: tuple[int, int], launches: int) -> None:
    """Only hundreds of tokens with different skills need more, because a launch carries a limited number of ids."""
    case = Case(Routing(experts=2), ALL[:1], 5, (9, 8, 7), (2, 2, 2))
    x, y = case.data(rows, tokens)
    ids = np.random.default_rng(0).integers(1, case.skills, shape)
    before = on_host().counts()[0]
    out = run(case, x, y, ids)[0]
    assert on_host().counts()[0] - before == launches
    expected, clear = case.expected(x, ids)
    assert np.abs(out - expected)[clear].max() <= TOLERANCE * np.abs(expected).max()


def test_few_tokens_fill_the_device_and_many_are_projected_once() -> None:
    case = Case(Routing(experts=2), ALL[:1], 5, (300, 100), (2, 2))  # slices of 64: five and two
    blocks = []
    for tokens, multiprocessors in ((1, 100), (1, 1), (80, 4)):
        before = on_host().counts()[1]
        run(case, *case.data(1, tokens), np.array([[1]]), multiprocessors=multiprocessors)
        blocks.append(on_host().counts()[1] - before)
    assert blocks == [2 * 5, 2, 2 * 10]


@pytest.mark.parametrize("bad", BAD_IDS)
def test_a_bad_skill_id_is_an_error_of_the_call(bad: int) -> None:
    case = Case(Routing(experts=2))
    x, y = case.data(2, 3)
    before = on_host().counts()
    with pytest.raises(InvalidArgument, match=f"skill id {bad} is not in the bank of 4 rows"):
        run(case, x, y, np.array([[1], [bad]]))
    assert on_host().counts() == before  # nothing was launched


def test_no_tokens_are_no_launch() -> None:
    case = Case(Routing(experts=2))
    x, y = case.data(2, 3)
    before = on_host().counts()
    assert run(case, x[:, :0], y[:, :0], np.ones((2, 1), np.int64))[0].shape == (2, 0, 13)
    assert on_host().counts() == before


def test_a_cuda_graph_is_refused() -> None:
    """A CUDA graph would replay the skill ids that it was captured with and ignore new ones."""
    case = Case(Routing(experts=2))
    x, y = case.data(1, 1)
    with pytest.raises(InvalidArgument, match="cannot be part of a CUDA graph"):
        run(case, x, y, np.array([[1]]), capturing=True)


def test_the_host_build_shows_faults() -> None:
    """The emulation detects the faults of kernels that are wrong on purpose."""
    build = OnHost("faults.cpp", 64)
    total = build.calls.FaultySum
    total.restype = ctypes.c_float
    none, no_barrier, divergent_barrier, unwritten, absent_lane = range(5)
    orders = range(4)
    assert {total(none, order) for order in orders} == {63 * 64 / 2}
    assert len({total(no_barrier, order) for order in orders}) > 1 or np.isnan(total(no_barrier, 0))
    assert {total(divergent_barrier, order) for order in orders} == {-1}
    assert all(np.isnan(total(unwritten, order)) for order in orders)
    assert {total(absent_lane, order) for order in orders} == {-1}


def documented() -> list[str]:
    """The words of the command in docs/install.md that builds the library for GPUs."""
    text = (ROOT / "docs" / "install.md").read_text("utf-8").replace("\\\n", " ")
    (line,) = re.findall(r"^ +(nvcc .*operators\.cu.*)$", text, re.MULTILINE)
    return shlex.split(line)


@pytest.mark.parametrize("build", BUILDS)
def test_builds_without_a_warning(build: str, tmp_path: Path) -> None:
    """nvcc, if installed, runs the documented command with warnings as errors and less optimisation."""
    if build == "host":
        assert str(operators.describe(on_host().path)) == "native, cuda"
        return
    words, library = documented(), tmp_path / "liblime_operators_cuda.so"
    words[-1] = str(library)
    strict = ["-Xcompiler", "-Wall,-Wextra", "-Werror", "all-warnings", "--resource-usage", "--no-compress"]
    quick = ["-Xcicc", "-O1", "-Xptxas", "-O1"]  # a third of the time; the library is not run
    done = subprocess.run([*words, *strict, *quick], cwd=ROOT, capture_output=True, text=True, check=False)
    printed = done.stdout + done.stderr
    assert done.returncode == 0, printed
    assert "warning" not in printed
    kernels = re.findall(r"entry function '\w+lime_linear\w+' for '(\w+)'", printed)
    assert {name: kernels.count(name) for name in kernels} == {"sm_75": 6, "sm_80": 6, "sm_90": 6}
    assert b".target sm_75" in library.read_bytes()  # PTX, which the driver compiles for later GPUs
    assert str(operators.describe(library)) == "native, cuda"  # it loads without a GPU
    with pytest.raises(Exception, match="Could not find an implementation for LimeLinear1"):
        Case(Routing(experts=2)).session(library)  # its kernels are for CUDA only


def test_what_was_never_run_is_said_so() -> None:
    words = documented()
    assert [word for word in words if "sm_" in word] == [
        "-gencode=arch=compute_75,code=[sm_75,compute_75]",
        "-gencode=arch=compute_80,code=sm_80",
        "-gencode=arch=compute_90,code=sm_90",
    ]
    for path in (SOURCES / "operators.cu", SOURCES / "kernel.cuh", ROOT / "docs" / "install.md"):
        text = path.read_text("utf-8").lower()
        assert re.search(r"compiled(, | but )not run on a gpu", " ".join(text.split())), path
