"""The rooms of the product and what each may import: one table.

Enforced by tests/product/test_packaging.py, drawn in docs/architecture.md.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from tests.support.paths import ROOT

HOMES = {
    "lime_edge": ROOT / "lime_edge",
    "lime_edge.exporters": ROOT / "exporters",
    "lime_edge.runtime": ROOT / "runtime",
}

#: Room -> rooms that its modules may import, besides `errors`, which all may. A room is a folder below lime_edge (or
#: exporters, runtime), or a single file; a module belongs to the longest name that fits.
ROOMS: dict[str, tuple[str, ...]] = {
    "errors": (),
    "common": (),
    "contract": ("common",),
    "skills": ("contract", "common"),
    "trust": ("skills", "contract", "common"),
    "store.remote": ("skills", "contract", "common"),
    "store": ("store.remote", "trust", "skills", "contract", "common"),
    "runtime.types": ("trust", "skills"),
    "runtime.vision": ("contract", "common"),
    "runtime.memory": (),
    "runtime.drafting": (),
    "runtime.native": ("contract",),
    "runtime.model": ("runtime.native", "runtime.memory", "runtime.vision", "contract", "common"),
    "runtime.text": ("runtime.types", "runtime.vision", "contract", "common"),
    "runtime.constraints": ("runtime.text", "skills", "common"),
    "runtime.skills": ("runtime.types", "runtime.memory", "skills", "contract", "common"),
    "runtime.routing": ("runtime.types", "skills"),
    "runtime.decoding": (
        *(
            "runtime.skills",
            "runtime.constraints",
            "runtime.drafting",
            "runtime.text",
            "runtime.model",
            "runtime.types",
        ),
        *("contract", "common"),
    ),
    "runtime.scheduling": ("runtime.decoding", "runtime.skills", "runtime.model", "runtime.types", "common"),
    "runtime": (
        *(
            "runtime.routing",
            "runtime.scheduling",
            "runtime.decoding",
            "runtime.constraints",
            "runtime.skills",
            "runtime.text",
            "runtime.model",
            "runtime.native",
            "runtime.types",
        ),
        *("trust", "skills", "contract", "common"),
    ),
    "exporters.operators": ("contract",),
    "exporters.weights": ("contract",),
    "exporters.passes": ("exporters.operators", "exporters.weights", "contract"),
    "exporters.web": ("exporters.passes", "exporters.weights", "runtime.text", "skills", "contract", "common"),
    "exporters.captured": (),
    "exporters.towers": ("exporters.captured", "exporters.weights", "backbones", "contract", "common"),
    "exporters": (
        *("exporters.captured", "exporters.towers", "exporters.passes", "exporters.weights", "contract", "common"),
    ),
    # of the runtime, the type that `measure` is given
    "evaluation": ("runtime", "runtime.text", "runtime.vision", "contract", "common"),
    "backbones": (),
    "method": ("contract", "common"),
    "training": (
        *("backbones", "method", "evaluation", "exporters", "exporters.captured", "exporters.towers"),
        *("runtime.native", "runtime.vision", "skills", "contract", "common"),
    ),
    "reports": ("store", "trust", "skills", "evaluation", "runtime", "runtime.native", "contract", "common"),
    "audit": ("reports", "runtime", "runtime.text", "evaluation", "trust", "skills", "contract", "common"),
    "server.formats": ("runtime", "runtime.types", "common"),
    "server.operations": ("server.formats", "runtime", "store", "trust", "contract", "common"),
    "server": (
        *("server.formats", "server.operations", "runtime", "runtime.types", "store", "trust", "skills"),
        *("contract", "common"),
    ),
    "cli": (
        *("audit", "reports", "exporters.web", "training", "method", "store", "trust", "skills", "evaluation"),
        *("runtime", "runtime.model", "server", "server.operations", "contract", "common"),
    ),
}

#: Libraries that only some rooms may import, even inside functions.
LIBRARIES: dict[str, tuple[str, ...]] = {
    "torch": ("backbones", "method", "training", "exporters.captured", "exporters.towers"),
    "transformers": ("backbones", "method", "training", "exporters.towers"),
    "peft": ("method", "training"),
    "accelerate": ("method", "training"),
    "gguf": ("training",),
    "onnx": ("exporters", "exporters.operators", "exporters.passes", "exporters.weights"),
    "onnx_ir": (
        "exporters.web",
        *("exporters", "exporters.operators", "exporters.passes", "exporters.weights"),
        *("exporters.captured", "exporters.towers"),
    ),
    "onnxscript": ("exporters", "exporters.operators", "exporters.passes", "exporters.weights"),
    "optimum": ("exporters",),
    "onnxruntime_genai": ("exporters",),
    "onnxruntime": (
        *("runtime", "runtime.decoding", "runtime.model", "runtime.native", "reports"),
        *("exporters", "exporters.towers", "training"),
    ),
    "tokenizers": ("runtime.text", "runtime"),
    "llguidance": ("runtime.constraints",),
    "cryptography": ("trust",),
    "model_signing": ("trust",),
    "huggingface_hub": ("store", "store.remote", "training"),
    "oras": ("store.remote",),
    "requests": ("store.remote",),
    "urllib3": ("store.remote",),
    "click": ("cli",),
    "fastapi": ("server", "server.formats"),
    "starlette": ("server", "server.operations"),
    "uvicorn": ("server", "server.operations"),
    "pydantic": ("server", "server.formats"),
    "h11": ("server.operations",),
    "sse_starlette": ("server",),
    "prometheus_client": ("server.operations",),
    "ray": ("server",),
    "PIL": ("runtime.vision",),
    "av": ("runtime.vision",),
}

#: `__init__` files that do more than describe their room, and why.
INITS = {
    "lime_edge": "the five public names, resolved on first use",
    "lime_edge.runtime": "the public names of the runtime",
    "lime_edge.exporters": "the public names of the exporters; every module there needs onnx_ir anyway",
    "lime_edge.method": "registers variants and the PEFT method, without which no checkpoint can be opened",
    "lime_edge.cli": "the entry point `lime_edge.cli:main`",
}

#: Base names that stand more than once, and why.
TWICE = {
    "catalogue": "of skills on a static host, and its commands",
    "audit": "the room, its main function and its command",
    "data": "the command, and the report on data files",
    "evaluation": "the room, and the report on its results",
    "export": "the function and its command",
    "model": "the contract of an exported model, the PEFT model, and the room of the opened model",
    "operators": "the functions in the graph, and the native library",
    "pictures": "those of training data, and those of requests",
    "prompts": "those of a request, and those of an audit",
    "receipt": "its form, the report on it and its command",
    "registry": "of variants, and of loaded skills",
    "route": "the centroids of a skill, and the command that makes them",
    "session": "of ONNX Runtime, and a conversation",
    "routing": "one part of the method: its constants, its torch code and its ONNX function",
    "runtime": "the room and its class",
    "skills": "packages, and loaded skills",
    "store": "the room, its class, its commands and the report on it",
    "trust": "the room and its commands",
    "vision": "the contract of vision.json, and the room that prepares pictures",
    "vision_graph": "as it is exported, and as it is opened",
}

#: Folders with more entries than others may have, and why.
FULLER = {
    "tests": "one folder for each room, and what they share",
}

#: Product modules without a test file of their name, and where they are tested instead.
TESTED_ELSEWHERE = {
    "lime_edge.cli.receipt": "tests/cli/test_route.py",  # from a checkpoint to a receipt
    "lime_edge.contract.names": "tests/contract/test_model.py",  # names alone
    "lime_edge.contract.vector_kinds": "tests/contract/test_module_table.py",  # constants alone
    "lime_edge.runtime.decoding.past": "tests/runtime/facade/test_session.py",  # a property test of sessions
    "lime_edge.runtime.decoding.state_reading": "tests/runtime/facade/test_routed_skills.py",
    "lime_edge.runtime.facade.conversations": "tests/runtime/facade/test_session.py",
    "lime_edge.server.ray": "tests/server/slow/ray_serve.py",  # ray is not installed by CI
    "lime_edge.server.serving": "tests/server/test_app.py",  # fields alone
}


def sources() -> dict[str, Path]:
    """Every module of the product by dotted name; the symlinks in lime_edge are not followed."""
    found = {}
    for package, home in HOMES.items():
        for path in home.rglob("*.py"):
            inside = path.relative_to(home)
            if package == "lime_edge" and inside.parts[0] in ("exporters", "runtime"):
                continue
            parts = [package, *inside.with_suffix("").parts]
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports(module: str, path: Path) -> Iterator[str]:
    """Dotted names that a module imports, wherever in it: ``from .a import b`` gives a and a.b."""
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package.rsplit(".", node.level - 1)[0] + "." if node.level else ""
            origin = (base + (node.module or "")).rstrip(".")
            yield origin
            yield from (f"{origin}.{alias.name}" for alias in node.names)


def arrows() -> set[tuple[str, str]]:
    """(importer, imported): a module of the product, or the top-level name of another distribution.

    ``from lime_edge.room import name`` is an arrow to the room only where `name` is no module of it.
    """
    modules = sources()
    found = set()
    for module, path in modules.items():
        named = set(imports(module, path))
        for name in named:
            if name in modules:
                deeper = any(other.startswith(f"{name}.") and other in modules for other in named)
                if not deeper and name != module:
                    found.add((module, name))
            elif not name.startswith("lime_edge"):
                found.add((module, name.partition(".")[0]))
    return found


def room_of(module: str) -> str | None:
    """The room of a module: the longest name in `ROOMS` that fits; None for what stands above all rooms."""
    inside = module.partition(".")[2]
    while inside and inside not in ROOMS:
        inside = inside.rpartition(".")[0]
    return inside or None


def described(room: str) -> str:
    """The first line of what a room says of itself."""
    module = f"lime_edge.{room}"
    path = sources()[module]
    return (ast.get_docstring(ast.parse(path.read_text("utf-8"))) or "").partition("\n")[0]


def cycles(graph: dict[str, set[str]]) -> list[list[str]]:
    """Every cycle that a depth-first walk closes, as the names along it."""
    found, done = [], set()

    def walk(name: str, path: list[str]) -> None:
        if name in path:
            found.append([*path[path.index(name) :], name])
        elif name not in done:
            for other in sorted(graph.get(name, ())):
                walk(other, [*path, name])
            done.add(name)

    for name in sorted(graph):
        walk(name, [])
    return found
