"""Crashes every operation of the store at each of its system calls: `python -m tests.tools.crash_store`.

A child process runs the operation and exits, as `kill -9` would, just before its n-th call of `os` that changes
something; if that call is a write, it is half done. For every n the store must be in the state before or after the
operation, the operation must succeed when it is repeated, and `gc` must delete all leftovers. Needs `os.fork`.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lime_edge.store.store import Store
from lime_edge.store.transfer import pull, update
from tests.support.store_case import Promise, check, litter, package, signature_of, state

CALLS = ("open", "write", "fsync", "close", "replace", "unlink", "mkdir")
_DEAD = 9
Operation = Callable[[Path], object]


def _install(path: Path, name: str, version: str, signed: bool = False) -> None:
    data = package(name, version)
    Store(path).install(data, signature=signature_of(data) if signed else None)


def _filled(path: Path) -> None:
    """Make a store of two skills: one signed and with a history, one pulled from a reference that has changed since."""
    _install(path, "a", "1.0.0")
    _install(path, "a", "1.1.0", signed=True)
    source = path.parent / "moving.lime"
    source.write_bytes(package("b", "1.0.0"))
    pull(Store(path), source.as_uri())
    source.write_bytes(package("b", "2.0.0"))


def _littered(path: Path) -> None:
    """As `_filled`, with a removed skill, temporary files and an unfinished download."""
    _filled(path)
    _install(path, "gone", "1.0.0", signed=True)
    Store(path).remove("gone")
    (path / "blobs" / ".half.0.tmp").write_bytes(b"half")
    (path / ".index.json.0.tmp").write_bytes(b"{")
    with Store(path).partials.hold("https://example.org/x") as partial:
        partial.begin('"tag"')
        partial.append(b"half")


def _damaged(path: Path) -> None:
    """As `_filled`, with a damaged file."""
    _filled(path)
    Store(path).get("a").write_bytes(b"damaged")


def _remove(path: Path) -> None:
    if "1.0.0" in Store(path).entry("a").versions:  # else it was removed before the process died
        Store(path).remove("a@1.0.0")


#: Name -> (prepare the store, run the operation).
OPERATIONS: dict[str, tuple[Operation, Operation]] = {
    "first install": (lambda path: None, lambda path: _install(path, "a", "1.0.0", signed=True)),
    "install of a newer version": (_filled, lambda path: _install(path, "a", "1.2.0", signed=True)),
    "install of another skill": (_filled, lambda path: _install(path, "c", "1.0.0")),
    "install of a file that is damaged": (
        _damaged,
        lambda path: _install(path, "a", "1.1.0", signed=True),
    ),
    "update": (_filled, lambda path: update(Store(path))),
    "rollback": (_filled, lambda path: Store(path).rollback("a", "1.0.0")),
    "remove": (_filled, _remove),
    "gc": (_littered, lambda path: Store(path).gc()),
}


def crash_everywhere(name: str) -> dict[str, int]:
    """Run one operation once for every point at which it can crash.

    Returns:
        The number of crashes before each kind of call.

    Raises:
        AssertionError: An invariant is violated.
    """
    prepare, operate = OPERATIONS[name]
    died: dict[str, int] = {}
    with tempfile.TemporaryDirectory() as work:
        template, path = Path(work) / "template" / "store", Path(work) / "run" / "store"
        template.parent.mkdir()
        prepare(template)
        before = state(template)
        after = None
        for point in range(1, 1000):
            shutil.rmtree(path.parent, ignore_errors=True)
            shutil.copytree(template.parent, path.parent)
            _move_references(path, template)
            code, call = _run(operate, path, point)
            if name != "install of a file that is damaged" or code == 0:
                check(path, _promises(before) if name != "remove" else set())
            if code == 0:
                after = state(path)
                break
            assert code == _DEAD, f"{name}, point {point}: ended with {code}"
            died[call] = died.get(call, 0) + 1
            _judge_survivor(name, path, point, operate, before)
        assert after is not None
        assert name == "gc" or name == "install of a file that is damaged" or after != before
    return died


def _judge_survivor(name: str, path: Path, point: int, operate: Operation, before: Any) -> None:
    survivor = state(path)
    operate(path)  # must succeed: the lock is free, and leftovers do no harm
    final = state(path)
    assert _plain(survivor) in (_plain(before), _plain(final)), f"{name}, point {point}: half-installed"
    check(path)
    Store(path).gc()
    assert not litter(path), f"{name}, point {point}: {litter(path)}"
    check(path)
    assert state(path) == final


def _promises(index: Any) -> set[Promise]:
    return {(entry.name, version, held.blob) for entry in index.values() for version, held in entry.versions.items()}


def _plain(index: Any) -> Any:
    """The index without times and origins."""
    return {
        entry.name: (entry.current, entry.history, {version: held.blob for version, held in entry.versions.items()})
        for entry in index.values()
    }


def _move_references(path: Path, template: Path) -> None:
    """Make the references in a copied store name the copied files."""
    index = path / "index.json"
    if index.is_file():
        index.write_text(index.read_text("utf-8").replace(template.parent.as_uri(), path.parent.as_uri()), "utf-8")


def _run(operate: Operation, path: Path, point: int) -> tuple[int, str]:
    """Run the operation in a child that exits at `point`; returns its exit code and the call that it did not make."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        try:
            _die_at(point, writer)
            operate(path)
            os._exit(0)
        finally:
            traceback.print_exc()
            os._exit(1)
    os.close(writer)
    _, status = os.waitpid(child, 0)
    call = os.read(reader, 100).decode()
    os.close(reader)
    return os.waitstatus_to_exitcode(status), call


def _die_at(point: int, writer: int) -> None:
    """Patch `os` so that the process exits at its call number `point` and writes the name of the call to `writer`."""
    count, really = 0, {name: getattr(os, name) for name in CALLS}

    def wrapped(name: str) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            nonlocal count
            count += 1
            if count == point:
                if name == "write":
                    really["write"](args[0], bytes(args[1])[: len(args[1]) // 2])
                really["write"](writer, name.encode())
                os._exit(_DEAD)
            return really[name](*args, **kwargs)

        return call

    for name in CALLS:
        setattr(os, name, wrapped(name))


def main() -> None:
    """Run all operations, or those named; prints how often each crashed before which call."""
    print(json.dumps({name: crash_everywhere(name) for name in sys.argv[1:] or OPERATIONS}, indent=2))


if __name__ == "__main__":
    main()
