"""Reports what is installed and used, and checks a model and its skills (`lime-edge doctor`).

Needs the base install only. Only `build_operators` changes anything.
"""

from __future__ import annotations

import os
import platform
import sys
from importlib import metadata, util
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lime_edge import __version__
from lime_edge.common.formatting import short, size
from lime_edge.common.paths import cache_dir
from lime_edge.errors import LimeError
from lime_edge.skills.compatibility import check_skill
from lime_edge.skills.package import read_skill
from lime_edge.store.lookup import skill_files

from .describe import Report
from .tables import Table

if TYPE_CHECKING:
    from lime_edge.runtime import Operators

#: Extra -> distribution -> the module to look for if its name differs. Must agree with pyproject.toml.
EXTRAS = {
    "train": {"accelerate": "", "gguf": "", "peft": "", "torch": "", "transformers": ""},
    "export": {
        "onnx": "",
        "onnx-ir": "onnx_ir",
        "onnxruntime-genai": "onnxruntime_genai",
        "onnxscript": "",
        "optimum": "",
        "tqdm": "",
    },
    "sign": {"cryptography": "", "model-signing": "model_signing", "pyopenssl": "OpenSSL"},
}
BASE = ("onnxruntime", "numpy", "tokenizers", "safetensors", "jinja2", "click", "rich")
#: Processor flags that affect the speed of int4 and bf16, by the names that Linux and macOS use.
FLAGS = {
    "avx2": "AVX2",
    "avx512f": "AVX-512",
    "avx_vnni": "AVX-VNNI",
    "avx512_vnni": "AVX-512 VNNI",
    "avx512_bf16": "AVX-512 bf16",
    "amx_int8": "AMX int8",
    "amx_bf16": "AMX bf16",
    "asimddp": "Arm dot product",
    "i8mm": "Arm int8 matrices",
    "bf16": "Arm bf16",
    "sve": "Arm SVE",
}
#: Compiled vector code of the native operators -> why the processor cannot run a faster variant.
LACKS = {"avx2": "no AVX-512", "generic": "neither AVX2 with FMA nor NEON"}


def machine() -> Report:
    """Describe versions, execution providers, processor, extras and cache."""
    import onnxruntime as ort

    from lime_edge.runtime.native.operators import AUTO, choose

    providers = ort.get_available_providers()
    flags = cpu_flags()
    missing = missing_extras()
    cache = cache_dir()
    kept = _size_of(cache)
    device = "cuda" if "CUDAExecutionProvider" in providers else "cpu"
    operators = choose(AUTO, device)
    document: dict[str, Any] = {
        "lime_edge": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": {name: _version(name) for name in BASE},
        "providers": providers,
        "device": device,
        "cpu": {"flags": flags, "logical_cores": os.cpu_count(), "usable_cores": _usable_cores()},
        "operators": _facts(operators),
        "missing": missing,
        "cache": {"directory": str(cache), "bytes": kept},
    }
    facts = [
        ("lime-edge", f"{__version__}, Python {platform.python_version()} on {platform.platform()}"),
        ("packages", ", ".join(f"{name} {version or 'MISSING'}" for name, version in document["packages"].items())),
        ("providers", f"{', '.join(providers)}; device auto is {device}"),
        ("processor", _processor(flags)),
        ("threads", f"one per physical core by default; {os.cpu_count()} logical cores, {_usable_cores()} usable here"),
        ("operators", _operators_text(operators)),
        *((f"extra {extra}", _extra(extra, names)) for extra, names in missing.items()),
        ("cache", f"{cache}, {size(kept)}"),
    ]
    return document, [Table("this machine", facts)]


def build_operators() -> None:
    """Compile the native operators into this installation.

    Raises:
        ConfigError: No compiler was found, or it failed; contains its output.
    """
    from lime_edge.runtime.native import operators

    operators.build()


def _facts(operators: Operators) -> dict[str, Any]:
    library = None if operators.library is None else str(operators.library)
    return {"native": operators.native, "library": library, "cpu": operators.cpu, "reason": operators.reason}


def _operators_text(operators: Operators) -> str:
    if not operators.native:
        return str(operators)
    missing = f"this processor has {LACKS[operators.cpu]}; " if operators.cpu in LACKS else ""
    asked = os.environ.get("LIME_EDGE_CPU")  # the library reads it, too
    return f"{operators}; {f'LIME_EDGE_CPU is {asked}; ' if asked else missing}{operators.library}"


def cpu_flags() -> list[str] | None:
    """The flags in `FLAGS` that the processor has; None if the system does not report them."""
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8", errors="replace").splitlines()
    except OSError:
        return None
    listed = next((line for line in lines if line.lower().startswith(("flags", "features"))), None)
    return None if listed is None else [flag for flag in listed.partition(":")[2].split() if flag in FLAGS]


def _processor(flags: list[str] | None) -> str:
    kind = platform.machine()
    if flags is None:
        return f"{kind}; this system does not report its features"
    have = ", ".join(FLAGS[flag] for flag in flags) or "no feature that speeds up int4 or bf16"
    integer = {"avx_vnni", "avx512_vnni", "asimddp", "i8mm"} & set(flags)
    return f"{kind}: {have}" + ("" if integer else "; without integer dot products int4 is slower")


def missing_extras() -> dict[str, list[str]]:
    """The distributions of each extra that are not installed."""
    missing = {
        extra: [name for name, module in modules.items() if util.find_spec(module or name) is None]
        for extra, modules in EXTRAS.items()
    }
    return {**missing, "export": [*missing["train"], *missing["export"]]}  # the extra export includes train


def _extra(extra: str, missing: list[str]) -> str:
    if not missing:
        return "installed"
    return f"missing {', '.join(missing)}: pip install 'lime-edge[{extra}]'"


def _version(name: str) -> str | None:
    for distribution in (name, f"{name}-gpu"):
        try:
            return metadata.version(distribution)
        except metadata.PackageNotFoundError:
            continue
    return None


def _usable_cores() -> int:
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


def _size_of(directory: Path) -> int:
    """Bytes of the files in a folder; of those that can be seen."""
    paths = [Path(folder, name) for folder, _, names in os.walk(directory) for name in names]
    return sum(path.lstat().st_size for path in paths if os.path.isfile(path) and not path.is_symlink())


def model(directory: Path, prove: bool) -> Report:
    """Verify a model's digests, load it, and check that each of its skills fits.

    Args:
        directory: An exported model.
        prove: Also run the golden prompts of each skill.

    Raises:
        ModelError: The model is unusable; names every fault.
    """
    from lime_edge.runtime import Runtime

    runtime = Runtime.load(directory, verify=True)
    contract = runtime.contract
    verdicts = {path.stem: _verdict(runtime, path, prove) for path in skill_files(directory)}
    facts = [
        (
            "files",
            f"{', '.join(dict(contract.files))} match their digests; graph {short(contract.graph_digest)}",
        ),
        ("runs on", f"{runtime.device}, {contract.precision}, context of {runtime.context_length} tokens"),
        ("operators", _operators_text(runtime.operators)),
    ]
    document = {
        "directory": str(directory),
        "graph": contract.graph_digest,
        "device": runtime.device,
        "operators": _facts(runtime.operators),
        "skills": verdicts,
    }
    tables = [Table(f"model {directory}", facts)]
    if verdicts:
        tables.append(
            Table("", [(name, verdict or "fits") for name, verdict in verdicts.items()], ("skill", "verdict"))
        )
    return document, tables


def _verdict(runtime: Any, path: Path, prove: bool) -> str | None:
    """Why the model cannot use a skill; None if it can."""
    try:
        check_skill(read_skill(path), runtime.contract)
        if prove:
            runtime.load_skill(path, path.stem, prove=True)
    except LimeError as error:
        return str(error)
    return None
