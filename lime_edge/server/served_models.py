"""The names that clients use for the base and its skills."""

from __future__ import annotations

import re
from functools import lru_cache

from lime_edge.common.strict_json import show
from lime_edge.contract.names import AUTO_SKILL
from lime_edge.errors import ConfigError, LimeError
from lime_edge.runtime import Runtime, SkillInfo
from lime_edge.server.formats.api_errors import unknown_model
from lime_edge.server.formats.response_models import ModelCard
from lime_edge.skills.manifest import Manifest
from lime_edge.skills.package import read_skill

SEPARATOR = ":"  # BASE:SKILL
_BASE_NAME = re.compile(r"[A-Za-z0-9._-]{1,128}")


def checked_base_name(name: str) -> str:
    """A name of the base model that stands in URLs and JSON as it is.

    Raises:
        ConfigError: It is empty, long, reserved, or has other characters than letters, digits, ``.``, ``_`` and ``-``.
    """
    if name == AUTO_SKILL or not _BASE_NAME.fullmatch(name):
        raise ConfigError(
            f"the name of the base model is {show(name)}; expected 1 to 128 letters, digits, '.', '_' or '-', and not "
            f"{AUTO_SKILL!r}: give another one with --name"
        )
    return name


def is_reserved(base: str, name: str) -> bool:
    """Whether a skill of this name could not be told from the base, or from the choice of a skill."""
    return name in (base, AUTO_SKILL) or name.startswith(base + SEPARATOR)


class ServedModels:
    """What a model name of a request means.

    Args:
        runtime: The model and its loaded skills.
        base: The name of the base.
        started: Unix time, for the cards.
    """

    def __init__(self, runtime: Runtime, base: str, started: int) -> None:
        self._runtime, self.base, self._started = runtime, base, started

    def skill(self, model: str) -> str | None:
        """The skill that a model name means: ``NAME``, ``BASE:NAME`` or ``auto``; None for the base.

        Raises:
            ApiError: There is no such model. It is never answered by the base instead.
        """
        if model == self.base:
            return None
        name = model.removeprefix(self.base + SEPARATOR)
        if name in self.skills() or (name == AUTO_SKILL and self.chooses):
            return name
        raise unknown_model(model, self.names())

    @property
    def chooses(self) -> bool:
        """Whether the model can choose the skill of a request."""
        return self._runtime.contract.route is not None

    def reserved(self, name: str) -> bool:
        """Whether no skill may have this name."""
        return is_reserved(self.base, name)

    def skills(self) -> dict[str, SkillInfo]:
        """The loaded skills by name."""
        return {info.name: info for info in self._runtime.skills()}

    def names(self) -> list[str]:
        """Every name that a request may use, without those of the form BASE:SKILL."""
        return [self.base, *self.skills(), *([AUTO_SKILL] if self.chooses else [])]

    def cards(self) -> list[ModelCard]:
        """The base, then the skills in loading order."""
        return [self._base_card(), *(self._skill_card(info) for info in self._runtime.skills())]

    def card(self, model: str) -> ModelCard:
        """One model.

        Raises:
            ApiError: There is none of this name.
        """
        name = self.skill(model)
        found = None if name is None else self.skills().get(name)
        if name is not None and found is None:
            raise unknown_model(model, self.names())
        return self._base_card() if found is None else self._skill_card(found)

    def _base_card(self) -> ModelCard:
        return ModelCard(
            id=self.base,
            created=self._started,
            owned_by="lime-edge",
            root=f"sha256:{self._runtime.contract.backbone_digest}",
            max_model_len=self._runtime.context_length,
        )

    def _skill_card(self, info: SkillInfo) -> ModelCard:
        manifest = _manifest(info)
        return ModelCard(
            id=info.name,
            created=self._started,
            owned_by=info.author or "lime-edge",
            parent=self.base,
            root=f"sha256:{info.digest}",
            generation=info.generation,
            max_model_len=self._runtime.context_length,
            version=info.version,
            description=info.description,
            examples=[] if manifest is None else list(manifest.interface.examples),
        )


@lru_cache(1024)
def _manifest(info: SkillInfo) -> Manifest | None:
    """The manifest of a loaded skill; None if its file holds something else by now."""
    try:
        found = read_skill(info.path).manifest
    except LimeError:
        return None
    return found if found.digest == info.digest else None
