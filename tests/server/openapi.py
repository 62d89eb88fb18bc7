"""Writes docs/openapi.json from the application: ``python -m tests.server.openapi``."""

from __future__ import annotations

import json

from lime_edge.server.app import create_app
from lime_edge.server.operations.server_settings import ServerSettings
from tests.server.served import shared
from tests.server.test_app import SCHEMA

if __name__ == "__main__":
    document = create_app(shared(), ServerSettings(), "tiny").openapi()
    SCHEMA.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n", "utf-8")
