"""API keys: the file, and whose a key is."""

from __future__ import annotations

from pathlib import Path

import pytest

from lime_edge.errors import ConfigError
from lime_edge.server.operations.api_keys import ApiKeys

KEY, OTHER = "k" * 16, "x" * 20


def test_names_and_comments(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text(f"# clients\n\nalice {KEY}\n  {OTHER}  \n", "utf-8")
    keys = ApiKeys.read(file)
    assert keys.client(KEY) == "alice"
    named = keys.client(OTHER)
    assert named is not None
    assert named.startswith("key-")
    assert OTHER not in named
    for wrong in ("", KEY[:-1], KEY + "k", "alice", f"alice {KEY}", "\udcff", "é"):
        assert keys.client(wrong) is None


def test_every_fault_is_named_and_no_key(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text(f"{KEY}\nshort\nbob {KEY}\nbob jones {OTHER}\nß{OTHER}\n", "utf-8")
    with pytest.raises(ConfigError) as caught:
        ApiKeys.read(file)
    assert [fault.partition(":")[0] for fault in caught.value.faults] == ["line 2", "line 3", "line 4", "line 5"]
    assert KEY not in str(caught.value)
    assert OTHER not in str(caught.value)


@pytest.mark.parametrize("data", [b"", b"# nothing\n", b"\xff" * 20])
def test_files_without_a_key(tmp_path: Path, data: bytes) -> None:
    file = tmp_path / "keys"
    file.write_bytes(data)
    with pytest.raises(ConfigError):
        ApiKeys.read(file)
    with pytest.raises(ConfigError, match="cannot be read"):
        ApiKeys.read(tmp_path / "none")
