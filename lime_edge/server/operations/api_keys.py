"""API keys: a file of keys, and which client a bearer token belongs to."""

from __future__ import annotations

import hashlib
import hmac
import os
import re
from collections.abc import Mapping

from lime_edge.common.files import read_bounded, reason
from lime_edge.common.strict_json import bounded, show
from lime_edge.errors import ConfigError

_FILE_LIMIT = 2**20  # bytes
_LINE = re.compile(r"(?:(?P<name>[\w.@-]{1,64})\s+)?(?P<key>[!-~]{16,512})", re.ASCII)


class ApiKeys:
    """The keys of a server. Only their hashes are kept.

    Args:
        names: The name of the client by key.
    """

    def __init__(self, names: Mapping[str, str]) -> None:
        self._hashes = [(_hash(key), name) for key, name in names.items()]

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> ApiKeys:
        """Read a file with one key a line, after the name of the client and a space if it has one; # begins a comment.

        A client without a name is called by the first digits of its key's hash.

        Raises:
            ConfigError: The file cannot be read, has no key, or names every invalid line (never the key).
        """
        try:
            lines = read_bounded(path, _FILE_LIMIT).decode("utf-8").splitlines()
        except (OSError, ValueError) as error:
            raise ConfigError(f"the file of API keys {show(str(path))} cannot be read: {reason(error)}") from error
        names: dict[str, str] = {}
        faults = []
        for number, line in enumerate(lines, 1):
            content = line.strip()
            if not content or content.startswith("#"):
                continue
            found = _LINE.fullmatch(content)
            if found is None:
                faults.append(f"line {number}: expected [NAME] KEY with a key of 16 to 512 visible ASCII characters")
            elif found["key"] in names:
                faults.append(f"line {number}: this key stands above, too; expected every key once")
            else:
                names[found["key"]] = found["name"] or f"key-{_hash(found['key']).hex()[:8]}"
        if not names and not faults:
            faults.append("there is no key; expected at least one")
        if faults:
            raise ConfigError(f"the file of API keys {show(str(path))} is invalid", bounded(faults))
        return cls(names)

    def client(self, token: str) -> str | None:
        """The name of the client with this key; None if there is none. Takes the same time for every token."""
        given, found = _hash(token), None
        for known, name in self._hashes:
            if hmac.compare_digest(given, known):
                found = name
        return found


def _hash(key: str) -> bytes:
    return hashlib.sha256(key.encode(errors="surrogateescape")).digest()
