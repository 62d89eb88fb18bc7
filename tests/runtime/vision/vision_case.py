"""A tiny model that sees: the runtime's tiny decoder with a hand-made vision graph, for tests of the runtime alone."""

from __future__ import annotations

import dataclasses
import shutil
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
import onnxruntime as ort

from lime_edge.contract.model import read_contract
from lime_edge.contract.model_files import file_digest
from lime_edge.contract.vision import Pixels, Tiles, Video, VisionContract
from lime_edge.exporters.passes.insert_features import InsertFeatures
from lime_edge.runtime import Runtime
from lime_edge.runtime.vision.prepare import prepare_image
from tests.support.runtime_models import HEAD, HIDDEN, exported, scratch, skill

Array = npt.NDArray[Any]

SIDE, TOKENS = 8, 4  # pixels of a tile, features of a picture
IMAGE_ID = 0  # <|endoftext|>
TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{% if m.content is string %}{{ m.content }}{% else %}"
    "{% for part in m.content %}{% if part.type == 'image' %}<|endoftext|>{% else %}{{ part.text }}{% endif %}"
    "{% endfor %}{% endif %}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
CONTRACT = VisionContract(
    family="lime_vision",
    features=HIDDEN,
    image_token="<|endoftext|>",  # a token of a prompt
    image_token_id=IMAGE_ID,
    pixels=Pixels("bilinear", 1 / 255, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)),
    tiles=Tiles(SIDE, SIDE, SIDE // 2, TOKENS),
    video=Video(4),
)


@cache
def seeing(precision: str = "fp32", window: int = 1) -> Path:
    """An exported model with vision.onnx and vision.json; tests must not write to it."""
    source, target = exported(window, precision), scratch() / f"seeing-{precision}-{window}"
    if target.exists():
        return target
    shutil.copytree(source, target)
    model = ir.load(source / "model.onnx")
    InsertFeatures()(model)
    ir.save(model, target / "model.onnx", external_data="model.onnx.data")
    write_vision_graph(target / "vision.onnx")
    (target / "vision.json").write_text(CONTRACT.to_json(), "utf-8")
    (target / "chat_template.jinja").write_text(TEMPLATE, "utf-8")
    refresh(target)
    return target


def refresh(directory: Path, *more: str) -> None:
    """Write the digests of a directory's files into lime.json."""
    names = ("model.onnx", "model.onnx.data", "vision.onnx", "vision.json", *more)
    files = tuple((name, file_digest(directory / name)) for name in names)
    sizes = tuple((name, (directory / name).stat().st_size) for name in names)
    contract = dataclasses.replace(read_contract(directory), files=files, sizes=sizes)
    (directory / "lime.json").write_text(contract.to_json(), "utf-8")


def weights() -> npt.NDArray[np.float32]:
    """What makes features of pixels, [3 * side * side / tokens, HIDDEN]."""
    rng = np.random.default_rng(7)
    return rng.normal(0, 0.15, (3 * SIDE * SIDE // TOKENS, HIDDEN)).astype(np.float32)


def write_vision_graph(path: Path, features: int = HIDDEN, output: str = "features") -> None:
    """pixel_values [tiles, 3, side, side] -> the values of each quarter, times `weights`: [tiles, tokens, features]."""
    floats = ir.TensorType(ir.DataType.FLOAT)
    pixels = ir.Value(name="pixel_values", shape=ir.Shape(["tiles", 3, SIDE, SIDE]), type=floats)
    shape = ir.Value(name="shape", const_value=ir.tensor(np.array([0, TOKENS, -1]), name="shape"))
    matrix = ir.Value(name="weights", const_value=ir.tensor(weights()[:, :features], name="weights"))
    reshaped = ir.Node("", "Reshape", [pixels, shape])
    product = ir.Node("", "MatMul", [reshaped.outputs[0], matrix])
    made = product.outputs[0]
    made.name, made.type = output, floats
    made.shape = ir.Shape(["tiles", TOKENS, features])
    graph = ir.Graph(
        [pixels], [made], nodes=[reshaped, product], initializers=[shape, matrix], opset_imports={"": 21}, name="vision"
    )
    ir.save(ir.Model(graph, ir_version=10), path)


def picture(seed: int) -> npt.NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (9, 12, 3), dtype=np.uint8)


def features(pixels: Array) -> Array:
    """The features [TOKENS, HIDDEN] of a picture, computed without a graph."""
    values = prepare_image(pixels, CONTRACT).arrays["pixel_values"]
    product: Array = values.reshape(TOKENS, -1) @ weights()
    return product


def asked(*values: Any, role: str = "user") -> list[dict[str, Any]]:
    """A message of texts and pictures (arrays)."""
    content: list[dict[str, Any]] = [{"type": "text" if isinstance(one, str) else "image"} for one in values]
    for part, one in zip(content, values, strict=True):
        part["text" if isinstance(one, str) else "image"] = one
    return [{"role": role, "content": content}]


def opened(*names: str, **settings: Any) -> Runtime:
    made = Runtime.load(seeing(), threads=1, **settings)
    for name in names:
        made.load_skill(skill(seeing(), name))
    return made


class PlainSight:
    """Runs the decoder without cache or batches: one whole sequence at a time, all features fed at once."""

    def __init__(self, directory: Path) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        options.log_severity_level = 3
        self._session = ort.InferenceSession(directory / "model.onnx", options, providers=["CPUExecutionProvider"])

    def logits(self, ids: list[int], pictures: list[Array]) -> Array:
        """Logits [S, V] of the base; ids below zero stand for the features of the pictures, in their order."""
        tokens = np.array([ids])
        rows = np.where(tokens < 0, np.cumsum(tokens < 0) - 1, -1)
        feeds: dict[str, Array] = {
            "input_ids": tokens.clip(0),
            "attention_mask": np.ones_like(tokens),
            "lime.feature_ids": rows,
            "lime.features": np.concatenate([features(one) for one in pictures] or [np.zeros((1, HIDDEN), np.float32)]),
        }
        for value in self._session.get_inputs():
            if value.name == "position_ids":
                feeds[value.name] = np.arange(len(ids))[None]
            if value.name.startswith("past_key_values"):
                feeds[value.name] = np.zeros((1, value.shape[1], 0, HEAD), np.float32)
        found: Array = self._session.run(["logits"], feeds)[0][0]
        return found
