"""The process that memory.py measures: opens a model, loads skills, answers, and prints one line of JSON.

It imports the package as an application does. The first argument holds the settings as JSON.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

_PROMPT = "Which governing law applies to this agreement?"


def main(settings: dict[str, Any]) -> dict[str, Any]:
    """Go through the stages of a start, then load more skills.

    Args:
        settings: ``began`` (time.time() before this process was created), ``model``, ``skills`` (paths), ``counts``
            (numbers of loaded skills at which to measure memory), ``threads``, ``operators`` and ``mapped``.

    Returns:
        Time and memory by stage, memory by number of loaded skills, bytes read from disk, and the files used.
    """
    stages = {"Python": _stage(settings["began"])}
    from lime_edge import Runtime

    stages["import"] = _stage(settings["began"])
    operators = None if settings["operators"] == "none" else settings["operators"]
    mapped = settings["mapped"]
    runtime = Runtime.load(settings["model"], threads=settings["threads"], operators=operators, mapped=mapped)
    stages["Runtime.load"] = _stage(settings["began"])
    skills = iter(settings["skills"])
    runtime.use_skill(runtime.load_skill(next(skills)).name)
    stages["load_skill"] = _stage(settings["began"])
    runtime.generate(_PROMPT, max_new_tokens=1)
    stages["first token"] = _stage(settings["began"])
    loaded = {}
    for count in settings["counts"]:
        while len(runtime.skills()) < count:
            runtime.load_skill(next(skills))
        loaded[count] = memory()
    return {"stages": stages, "loaded": loaded, "read": _read(), "files": _files()}


def memory() -> dict[str, int]:
    """Resident bytes of this process: all of them, and the private ones (not file-backed or shared)."""
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return {name: 1024 * int(status[key].split()[0]) for name, key in (("all", "VmRSS"), ("private", "RssAnon"))}


def _stage(began: float) -> dict[str, float]:
    return {"seconds": time.time() - began, **memory()}


def _read() -> int:
    """Bytes that were read from disk rather than from the page cache."""
    io = dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())
    return int(io["read_bytes"])


def _files() -> list[str]:
    """Files that this process has imported or maps."""
    mapped = {line.split(maxsplit=5)[-1] for line in Path("/proc/self/maps").read_text().splitlines() if "/" in line}
    imported = {str(module.__file__) for module in sys.modules.values() if getattr(module, "__file__", None)}
    cached = {str(module.__cached__) for module in sys.modules.values() if getattr(module, "__cached__", None)}
    return sorted(path for path in mapped | imported | cached if Path(path).is_file())


if __name__ == "__main__":
    print(json.dumps(main(json.loads(sys.argv[1]))), flush=True)
