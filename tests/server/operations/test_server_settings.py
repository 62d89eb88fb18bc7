"""Settings that would be unsafe are refused, all at once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from lime_edge.errors import ConfigError
from lime_edge.server.operations.server_settings import Limits, ServerSettings, is_loopback


def test_only_loopback_without_keys(tmp_path: Path) -> None:
    for host in ("127.0.0.1", "127.8.8.8", "::1", "localhost"):
        assert ServerSettings(host=host).local
    for host in ("0.0.0.0", "::", "192.168.1.5", "example.com", ""):
        with pytest.raises(ConfigError, match="anyone who reaches this machine could use the server"):
            ServerSettings(host=host)
        assert not ServerSettings(host=host, insecure=True).local
        assert not ServerSettings(host=host, api_keys=tmp_path / "keys").local


def test_faults(tmp_path: Path) -> None:
    bad: dict[str, Any] = {
        "port": 70000,
        "certificate": tmp_path / "cert.pem",
        "insecure": True,
        "api_keys": tmp_path / "keys",
        "adapters": tmp_path / "none",
        "cors_origins": ("example.com", "https://example.com/", "https://example.com"),
    }
    with pytest.raises(ConfigError) as caught:
        ServerSettings(**bad)
    assert len(caught.value.faults) == 6
    with pytest.raises(ConfigError) as caught:
        Limits(running=0, waiting=-1, queue_seconds=0, body_bytes=-1)
    assert len(caught.value.faults) == 4
    assert Limits(waiting=0).waiting == 0


def test_names_that_are_not_addresses_are_not_loopback() -> None:
    assert not is_loopback("localhost.example.com")
    assert not is_loopback("127.0.0.1.example.com")
