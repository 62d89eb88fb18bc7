"""The library of native operators beside a model, for ONNX Runtime GenAI."""

from __future__ import annotations

import json
from pathlib import Path

from lime_edge.exporters.genai_config import place_operators


def test_the_library_is_copied_and_named_by_its_file_name(tmp_path: Path) -> None:
    library = tmp_path / "elsewhere" / "liblime_operators.so"
    library.parent.mkdir()
    library.write_bytes(b"code")
    model = tmp_path / "model"
    model.mkdir()
    options = {"log_id": "onnxruntime-genai", "provider_options": []}
    config = {"model": {"decoder": {"session_options": options}, "vocab_size": 300}}
    (model / "genai_config.json").write_text(json.dumps(config), "utf-8")
    place_operators(model, library)
    assert (model / library.name).read_bytes() == b"code"
    options["custom_ops_library"] = library.name
    assert json.loads((model / "genai_config.json").read_text("utf-8")) == config
