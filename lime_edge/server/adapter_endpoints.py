"""POST /v1/load_lora_adapter and /v1/unload_lora_adapter: off unless the operator configured where skills come from."""

from __future__ import annotations

from pathlib import Path

from lime_edge.common.strict_json import show
from lime_edge.contract.names import SKILL_SUFFIX
from lime_edge.errors import StoreError
from lime_edge.server.formats.api_errors import ApiError, unknown_model
from lime_edge.server.formats.request_models import LoadAdapterRequest, UnloadAdapterRequest
from lime_edge.server.operations.request_log import event
from lime_edge.skills.manifest import NAME
from lime_edge.store.store import Store
from lime_edge.store.transfer import pull
from lime_edge.trust.policy import read_trusted_skill

from .serving import Serving

REFERENCES = ("https://", "hf://", "oci://")


def load_adapter(serving: Serving, body: LoadAdapterRequest) -> str:
    """Load a skill from below the configured folder, or by reference if that is allowed; replaces none.

    Raises:
        ApiError: It is off, the name or the place is not allowed, or there is no such file.
        LimeError: The skill cannot be fetched or loaded.
    """
    settings = serving.settings
    if settings.adapters is None and not settings.references:
        raise _off()
    if faults := list(NAME("lora_name", body.lora_name)):
        raise ApiError(400, faults[0], "lora_name", "invalid_value")
    if serving.models.reserved(body.lora_name):
        raise ApiError(400, f"the name {body.lora_name!r} is reserved; use another", "lora_name", "invalid_value")
    if body.lora_name in serving.models.skills():
        text = f"a skill named {body.lora_name!r} is loaded; unload it first"
        raise ApiError(400, text, "lora_name", "already_loaded")
    path, trust = _file(serving, body.lora_path), serving.runtime.trust
    if trust is not None and (name := read_trusted_skill(path, trust).skill.manifest.name) != body.lora_name:
        # A trust policy reserves names for publishers: no skill gets around it under another name.
        raise ApiError(403, f"the skill is named {name!r}; load it under this name", "lora_name", "skill_refused")
    info = serving.runtime.load_skill(path, body.lora_name)
    event("skill loaded", skill=info.name, version=info.version, digest=info.digest, generation=info.generation)
    return f"Success: LoRA adapter '{info.name}' added successfully."


def unload_adapter(serving: Serving, body: UnloadAdapterRequest) -> str:
    """Unload a skill; requests in flight finish with it.

    Raises:
        ApiError: It is off, or there is no such skill.
    """
    if serving.settings.adapters is None and not serving.settings.references:
        raise _off()
    if body.lora_name not in serving.models.skills():
        raise unknown_model(body.lora_name, list(serving.models.skills()))
    serving.runtime.unload_skill(body.lora_name)
    event("skill unloaded", skill=body.lora_name)
    return f"Success: LoRA adapter '{body.lora_name}' removed successfully."


def _file(serving: Serving, place: str) -> Path:
    if place.startswith(REFERENCES):
        if not serving.settings.references:
            raise ApiError(403, "this server loads no skills by reference", "lora_path", "not_allowed")
        try:
            return pull(Store(), place, serving.runtime.trust).path
        except StoreError as error:
            event("store unavailable", error=error)
            raise
    root = serving.settings.adapters
    found = None if root is None else below(root, place)
    if found is None:
        # The same answer whether there is a file or not: a client learns nothing of the server's disk.
        text = (
            f"there is no skill {show(place)} in the folder of this server; expected the name of a {SKILL_SUFFIX} file"
        )
        raise ApiError(404, text, "lora_path", "adapter_not_found")
    return found


def below(root: Path, place: str) -> Path | None:
    """The regular file that a path names below a folder, links resolved; None if it is none, or not below it."""
    if "\0" in place or not place.endswith(SKILL_SUFFIX):
        return None
    try:
        folder = root.resolve(strict=True)
        path = (folder / place).resolve(strict=True)
        return path if path.is_relative_to(folder) and path.is_file() else None
    except (OSError, ValueError, RuntimeError):  # too long, a loop of links, not encodable
        return None


def _off() -> ApiError:
    return ApiError(403, "this server does not let clients load or unload skills", code="not_allowed")
