"""Settings of a server, and which of them would be unsafe together."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from lime_edge.errors import ConfigError


@dataclass(frozen=True)
class Limits:
    """What one client may take of a server."""

    running: int = 8  # requests that are answered at the same time
    waiting: int = 64  # requests that wait for that
    queue_seconds: float = 30.0  # a request that waited this long is refused with 429
    request_seconds: float = 600.0  # a request that is answered for this long ends with what it has
    body_bytes: int = 8 * 2**20
    read_seconds: float = 20.0  # for the header of a request, and again for its body
    send_seconds: float = 60.0  # a client that takes nothing for this long is cut off
    drain_seconds: float = 30.0  # running streams may take this long when the server stops
    rows: int = 64  # answers of one request: its prompts times n

    def __post_init__(self) -> None:
        faults = [
            f"{name} is {value}; expected more than 0"
            for name, value in vars(self).items()
            if not value > 0 and name != "waiting"
        ]
        if self.waiting < 0:
            faults.append(f"waiting is {self.waiting}; expected 0 or more")
        if faults:
            raise ConfigError("the limits of the server are invalid", faults)


@dataclass(frozen=True)
class ServerSettings:
    """Where a server listens, who may use it, and what it offers."""

    host: str = "127.0.0.1"
    port: int = 8000
    api_keys: Path | None = None  # None: any bearer token is accepted
    insecure: bool = False  # listen on other addresses than this machine's own although there are no keys
    certificate: Path | None = None  # TLS: PEM files
    private_key: Path | None = None
    adapters: Path | None = None  # clients may load skills below this folder; None: they may not
    references: bool = False  # clients may load skills by reference, which the server then fetches
    cors_origins: tuple[str, ...] = ()
    page: bool = False  # serve the page at /
    log_prompts: bool = False
    limits: Limits = field(default_factory=Limits)

    def __post_init__(self) -> None:
        if faults := list(self._faults()):
            raise ConfigError("the settings of the server are invalid", faults)

    @property
    def local(self) -> bool:
        """Whether only this machine can reach the server."""
        return is_loopback(self.host)

    def _faults(self) -> Iterator[str]:
        if not 0 <= self.port <= 65535:
            yield f"port is {self.port}; expected 0 to 65535"
        if not self.local and self.api_keys is None and not self.insecure:
            yield (
                f"host is {self.host!r} and there are no API keys: anyone who reaches this machine could use "
                "the server; expected --api-keys FILE, a loopback address, or --insecure"
            )
        if (self.certificate is None) != (self.private_key is None):
            yield "one of certificate and private key is missing; expected both for TLS, or none"
        if self.insecure and self.api_keys is not None:
            yield "insecure is set although there are API keys; expected one of them"
        if self.adapters is not None and not self.adapters.is_dir():
            yield f"the folder of adapters {str(self.adapters)!r} does not exist"
        yield from (
            f"the CORS origin {origin!r} is no origin; expected scheme://host[:port]"
            for origin in self.cors_origins
            if origin != "*" and ("://" not in origin or origin.endswith("/"))
        )


def is_loopback(host: str) -> bool:
    """Whether an address or host name is one of this machine's own."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
