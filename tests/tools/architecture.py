"""docs/architecture.md, drawn from the table of rooms: `python -m tests.tools.architecture` writes it anew."""

from __future__ import annotations

from tests.support.paths import DOCS
from tests.support.rooms import LIBRARIES, ROOMS, described

PAGE = DOCS / "architecture.md"
_HEAD = """# Architecture

This page is generated from the table of rooms in tests/support/rooms.py by `python -m tests.tools.architecture`; a test
checks that it is current, and another holds every module to the arrows.

A room is a folder of the package. Its modules import each other, the rooms that the arrows lead to, and `errors`, which
all may import. `exporters/` and `runtime/` are folders of their own at the top of the repository and are imported as
`lime_edge.exporters` and `lime_edge.runtime`.

## The way of a skill

1. `evaluation` reads and checks the rows of a JSONL file; `training` tokenises them and opens the checkpoint, in which
   `method` has put LiME layers around the frozen backbone.
2. `training` learns the vectors of the skill, answers a few golden prompts with it, and hands vectors and facts to
   `skills`, which writes one checked file, `NAME.lime`. `trust` signs it.
3. `exporters`, once for each checkpoint, writes backbone and shared adapter as an ONNX graph in which the operators of
   `ai.lime` read the skill's vectors from an input. `contract` says what file and graph have to agree on: lime.json.
4. `store` fetches the skill on another machine. `runtime` verifies it with `trust`, checks it against the model with
   `skills`, lays its vectors into a row of the bank (`runtime.skills`) and, on request, reproduces the golden prompts.
5. A request names the skill: `runtime.text` turns it into tokens, `runtime.decoding` runs the session of
   `runtime.model` with the number of that row, and the answer comes back with a receipt.

## Rooms and arrows

Arrows that follow from others are left out of the drawing; the table has all of them.
"""


def _reach(room: str) -> set[str]:
    found: set[str] = set()
    for other in ROOMS[room]:
        found |= {other} | _reach(other)
    return found


def _drawn(room: str) -> list[str]:
    """The arrows of a room that do not follow from its others."""
    may = ROOMS[room]
    return [other for other in may if not any(other in _reach(third) for third in may)]


def _name(room: str) -> str:
    return room.replace(".", "_")


def page() -> str:
    """The whole page."""
    shown = [room for room in ROOMS if room != "errors"]
    picture = ["```mermaid", "graph TD"]
    picture += [f'    {_name(room)}["{room}"]' for room in reversed(shown)]
    picture += [f"    {_name(room)} --> {_name(other)}" for room in reversed(shown) for other in _drawn(room)]
    rows = ["| room | what it is | may import | libraries that only some rooms import |", "|---|---|---|---|"]
    for room in reversed(shown):
        libraries = [name for name, homes in LIBRARIES.items() if room in homes]
        may = ", ".join(ROOMS[room]) or "nothing"
        rows.append(f"| `{room}` | {described(room)} | {may} | {', '.join(libraries)} |")
    return "\n".join([_HEAD, *picture, "```", "", *rows, ""])


if __name__ == "__main__":
    PAGE.write_text(page(), "utf-8")
