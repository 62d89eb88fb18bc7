"""A conversation in the terminal with commands that switch skills: the loop behind `lime-edge chat`."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lime_edge.common.formatting import printable
from lime_edge.contract.names import AUTO_SKILL
from lime_edge.errors import LimeError
from lime_edge.reports.tables import say
from lime_edge.runtime import Runtime
from lime_edge.skills.manifest import Manifest
from lime_edge.skills.package import read_skill
from lime_edge.store.lookup import find_skill, skill_files

from .options import with_pictures
from .streams import checked

HELP = (
    "/skill NAME or FILE, /skill auto, /skill none, /skill list, /image FILE, /video FILE, "
    "/clear (forget the conversation), /quit"
)
_NONE, _LIST = "none", "list"


class Chat:
    """One conversation.

    Args:
        runtime: The model.
        directory: Model directory whose skills can be named.
        settings: Generation settings of every answer.
    """

    def __init__(self, runtime: Runtime, directory: Path, settings: Mapping[str, Any]) -> None:
        self.runtime, self.directory, self.settings = runtime, directory, dict(settings)
        self.messages: list[dict[str, Any]] = []
        self._shown: dict[str, list[Path]] = {"image": [], "video": []}  # with the next line
        self._loaded: dict[Path, str] = {}  # package -> name under which it is loaded
        self._alone: set[Any] = {AUTO_SKILL}  # names of the skills that are shown the newest line only

    def loop(self) -> None:
        """Read and answer lines until /quit, the end of the input, or Ctrl-C at the prompt."""
        with contextlib.suppress(ImportError):
            import readline  # noqa: F401  (line editing and history for input)
        say(f"{HELP}\n")
        while True:
            try:
                line = input(f"{self.runtime.active_skill or 'base'}> ").strip()
            except (EOFError, KeyboardInterrupt):
                say("\n")
                return
            if line == "/quit":
                return
            try:
                self._handle(checked(line, "the line"))
            except LimeError as error:
                say(f"{error}\n")

    def _handle(self, line: str) -> None:
        command, _, rest = line.partition(" ")
        if command == "/skill":
            self.use(rest.strip())
        elif command in ("/image", "/video"):
            self._show(command[1:], rest.strip())
        elif command == "/clear":
            self.messages.clear()
            self._take_shown()
        elif line.startswith("/"):
            say(f"{printable(command)} is not a command; expected {HELP}\n")
        elif line:
            self._answer(line)

    def use(self, name: str) -> None:
        """Switch to a skill or to the base model (`none`), or list the skills (`list`).

        Raises:
            LimeError: The skill does not exist or does not fit; the active skill stays.
        """
        if name in ("", _LIST):
            names = [path.stem for path in skill_files(self.directory)]
            names += [called for called in self._loaded.values() if called not in names]
            active = self.runtime.active_skill
            names += [AUTO_SKILL] if self.runtime.contract.route is not None else []
            say("".join(f"{'*' if one == active else ' '} {printable(one)}\n" for one in names) or "no skills found\n")
        elif name == _NONE:
            self.runtime.use_skill(None)
        elif name == AUTO_SKILL:
            for path in skill_files(self.directory):
                if path not in self._loaded:
                    self._loaded[path] = self.runtime.load_skill(path, path.stem).name
            self.runtime.use_skill(AUTO_SKILL)
        else:
            path = find_skill(self.directory, name)
            if path not in self._loaded:
                self._loaded[path] = self.runtime.load_skill(path, name).name
                if answers_requests(read_skill(path).manifest):
                    self._alone.add(self._loaded[path])
            self.runtime.use_skill(self._loaded[path])

    def _show(self, kind: str, name: str) -> None:
        """Show a picture or a video with the next line."""
        path = Path(name).expanduser()
        if not name or not path.is_file():
            say(f"{printable(name) or 'nothing'} is not a file; expected /{kind} FILE\n")
        else:
            self._shown[kind].append(path)
            say(f"the next line is asked about {printable(path.name)}\n")

    def _take_shown(self) -> tuple[list[Path], list[Path]]:
        shown, self._shown = self._shown, {"image": [], "video": []}
        return shown["image"], shown["video"]

    def _answer(self, text: str) -> None:
        """Stream one answer; Ctrl-C ends it early and keeps its text in the conversation."""
        content = with_pictures(text, *self._take_shown())
        asked = [*self.messages, {"role": "user", "content": content}]
        alone = self.runtime.active_skill in self._alone
        pieces = self.runtime.stream(content if alone else asked, **self.settings)
        said: list[str] = []
        try:
            for piece in pieces:
                said.append(piece)
                say(piece)
        except KeyboardInterrupt:
            pieces.close()
        say("\n")
        if "".join(said):
            self.messages = [*asked, {"role": "assistant", "content": "".join(said)}]


def answers_requests(manifest: Manifest) -> bool:
    """Whether a skill was made for single requests, so that it is not shown the turns before.

    Its interface then says how a request looks, or it was learned from rows that share an instruction.
    """
    interface, made = manifest.interface, manifest.made
    described = bool(interface.prefix or interface.suffix or interface.examples)
    return described or (made is not None and made["instruction"] != "none")
