"""The manifest of a skill package: its fields and their validation, which reports every fault at once.

Normative page: docs/skill-format.md.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field, fields, replace
from datetime import date
from typing import Any, Literal, NotRequired, TypedDict

from lime_edge.common.digests import canonical_json
from lime_edge.common.strict_json import Check, bounded, load_json, number, one_of, record, sequence, show, text, whole
from lime_edge.contract.routing import Routing
from lime_edge.contract.vector_kinds import STORED, Kind
from lime_edge.errors import ConfigError, SkillFormatError

from .draft_table import DRAFT, DraftMeta
from .interface import INTERFACE, SYSTEM, Interface
from .route import ROUTE, RouteMeta

FORMAT = 2  # of new packages; format 1 is read too
MANIFEST_LIMIT = 4 * 2**20  # characters of the manifest's text
NAME_PATTERN = r"[a-z0-9][a-z0-9._-]{0,63}"
GOLDEN_LIMIT = 16  # golden prompts
IDS_LIMIT = 4096  # token ids in one golden list

_NUMBER = r"(0|[1-9]\d{0,8})"
_LABEL = r"(0|[1-9]\d{0,8}|\d*[A-Za-z-][0-9A-Za-z-]*)"
_SEMVER = rf"{_NUMBER}\.{_NUMBER}\.{_NUMBER}(-{_LABEL}(\.{_LABEL})*)?(\+[0-9A-Za-z-]+(\.[0-9A-Za-z-]+)*)?"
_SPDX = r"[A-Za-z0-9.+()\- ]+"

Activation = Literal["always", "response"]


class Generation(TypedDict, total=False):
    """Generation settings that the skill was made for; settings of a call override them."""

    max_new_tokens: int
    temperature: float  # 0 means greedy
    top_k: int  # 0 means no limit
    top_p: float
    repetition_penalty: float


class Prompt(TypedDict):
    """Defaults of a request to the skill: generation settings and stop texts."""

    generation: Generation
    stop: list[str]


class Golden(TypedDict):
    """A golden prompt with its expected answer, which proves that a loaded skill works.

    `skill_logits` and `base_logits` are the logits of the tokens `top_ids` at the first token of the
    answer, with the skill and without.
    """

    prompt_ids: list[int]
    answer_ids: list[int]
    top_ids: list[int]
    skill_logits: list[float]
    base_logits: list[float]


class Metric(TypedDict):
    """One measured score on the data set whose SHA-256 is `dataset`."""

    dataset: str
    name: str
    split: str
    rows: int
    skill: float
    base: float
    lora: NotRequired[float]
    date: str


class Data(TypedDict):
    """Counts of the rows that a skill was learned from."""

    rows: int  # given for training
    dropped: int  # of these, left out because they are too long
    duplicates: int  # of these, repeats of another row
    overlap: int  # of these, left out because their prompt is also in the validation data


class Made(TypedDict):
    """How a skill came to be."""

    how: Literal["learned", "proposed", "rebased"]
    instruction: Literal["carried", "kept", "none"]  # in the vectors, in the interface, or the data had none
    data: Data


class OtherFormatError(SkillFormatError):
    """The package has another format version, whose other rules are unknown to this reader."""


def _no_prompt() -> Prompt:
    return {"generation": {}, "stop": []}


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """What a skill is, which model it was made for, and its measured scores.

    A manifest built in code is validated when it is written; one read from a file already was.
    `write_skill` fills in `bounds`, `draft`, `route` and `digest`. A package keeps the format that it was read in.
    """

    name: str  # NAME_PATTERN
    version: str  # semantic version
    backbone: str  # SHA-256 of the backbone's weights
    adapter: str  # SHA-256 of the shared adapter
    modules: str  # SHA-256 of the module table
    routing: Routing  # its `experts` is the E of the vectors
    created: str  # YYYY-MM-DD
    backbone_name: str = ""  # for people; never compared
    description: str = ""
    license: str = "NOASSERTION"  # SPDX expression
    author: str = ""
    activation: Activation = "response"  # the first token to which the skill applies
    interface: Interface = field(default_factory=Interface)  # requests and answers
    prompt: Prompt = field(default_factory=_no_prompt)
    bounds: dict[Kind, float] = field(default_factory=dict)  # max |value| of each kind present
    golden: list[Golden] = field(default_factory=list)
    metrics: list[Metric] = field(default_factory=list)
    made: Made | None = None  # None: not said
    draft: DraftMeta | None = None  # of the draft table in the package
    route: RouteMeta | None = None  # of the centroids in the package
    centroid: list[float] | None = None  # mean prompt embedding; format 1 only
    digest: str = ""
    format: int = FORMAT

    @property
    def experts(self) -> int:
        """E, the rows of every vector; 1 where routing does not matter."""
        return self.routing.experts

    def to_dict(self) -> dict[str, Any]:
        """The JSON document in the manifest's own format; optional keys are left out where they say nothing.

        What format 1 has no key for is not left out: the document is then refused by that key's name.
        """
        document = {f.name: getattr(self, f.name) for f in fields(self)}
        document |= {"experts": self.experts, "routing": self.routing.to_dict(), "interface": self.interface.to_dict()}
        for key in _OPTIONAL:
            if document[key] is None:
                del document[key]
        if self.format == 1:
            document["prompt"] = {**self.prompt, "system": self.interface.system}
            if self.interface == Interface(system=self.interface.system):
                del document["interface"]
        return document

    @classmethod
    def from_dict(cls, document: Any) -> Manifest:
        """Build a manifest from a parsed document.

        Raises:
            SkillFormatError: Names every fault of the document.
        """
        version = document.get("format") if isinstance(document, dict) else None
        if isinstance(version, int) and version not in _RULES:
            raise OtherFormatError(
                f"format version {show(version)}; this lime-edge reads versions 1 and {FORMAT}: update lime-edge, "
                "or make the skill again with this version"
            )
        if faults := manifest_faults(document):
            raise SkillFormatError("the manifest cannot be used", bounded(faults))
        known = {key: value for key, value in document.items() if key != "experts"}
        known["routing"] = Routing.from_dict(document["routing"])
        if version == 1:
            prompt = dict(document["prompt"])
            known |= {"interface": Interface(system=prompt.pop("system")), "prompt": prompt}
        else:
            known["interface"] = Interface.from_dict(document["interface"])
        return cls(**known)

    @classmethod
    def from_json(cls, source: str) -> Manifest:
        """Parse the manifest text of a package.

        Raises:
            SkillFormatError: Too long, not strict JSON, another format version, not in canonical form, or with
                unknown, missing or invalid keys.
        """
        if len(source) > MANIFEST_LIMIT:
            raise SkillFormatError(f"the manifest is over {MANIFEST_LIMIT} characters")
        try:
            document = load_json(source)
        except ValueError as error:
            raise SkillFormatError(f"the manifest is not strict JSON: {error}") from error
        manifest = cls.from_dict(document)
        # With one byte form, every reader displays, hashes and verifies the same text.
        if canonical_json(document) != source.encode():
            raise SkillFormatError("the manifest is not in canonical form (sorted keys, no spaces); write it again")
        return manifest

    def sealed(
        self, bounds: dict[Kind, float], digest: str, draft: DraftMeta | None = None, route: RouteMeta | None = None
    ) -> Manifest:
        """A copy with what the writer computed from the tensors."""
        return replace(self, bounds=bounds, digest=digest, draft=draft, route=route)


def manifest_faults(document: Any) -> list[str]:
    """Every fault of a parsed manifest, one line each, by the rules of its format version or of the newest."""
    version = document.get("format") if isinstance(document, dict) else None
    rules = _RULES.get(version, _RULES[FORMAT]) if type(version) is int else _RULES[FORMAT]
    return [*rules("manifest", document), *_agreement(document)]


def _agreement(document: Any) -> Iterator[str]:
    if not isinstance(document, dict):
        return
    routing, experts = document.get("routing"), document.get("experts")
    if isinstance(routing, dict) and routing.get("experts") != experts:
        yield f"experts is {show(experts)} but routing.experts is {show(routing.get('experts'))}; expected the same"


def _date(where: str, value: Any) -> Iterator[str]:
    try:
        if not isinstance(value, str) or not re.fullmatch(r"\d{4}-\d{2}-\d{2}", value, re.ASCII):
            raise ValueError(value)
        date.fromisoformat(value)
    except ValueError:
        yield f"{where} is {show(value)}; expected a date, YYYY-MM-DD"


def _routing(where: str, value: Any) -> Iterator[str]:
    if not isinstance(value, dict) or not all(isinstance(v, str | int | float) for v in value.values()):
        yield f"{where} is {show(value)}; expected an object of numbers and words"
        return
    try:
        Routing.from_dict(value)
    except ConfigError as error:
        for fault in error.faults:
            yield f"{where}: {fault[:200]}"


_GOLDEN_LISTS = ("top_ids", "skill_logits", "base_logits")


def _golden(where: str, value: Any) -> Iterator[str]:
    yield from _GOLDEN(where, value)
    lists = [value.get(key) for key in _GOLDEN_LISTS] if isinstance(value, dict) else []
    lengths = [len(found) for found in lists if isinstance(found, list)]
    if len(set(lengths)) > 1:
        yield f"{where} has lists of {lengths} for {', '.join(_GOLDEN_LISTS)}; expected equal lengths"


NAME = text(64, least=1, pattern=NAME_PATTERN, what="a name")
VERSION = text(64, least=5, pattern=_SEMVER, what="a semantic version")
DIGEST = text(64, least=64, pattern="[0-9a-f]{64}", what="a SHA-256 in lower-case hex")
_LOGIT = number(-1e6, 1e6)
_IDS = sequence(whole(0, 2**31 - 1), IDS_LIMIT, least=1)
_LOGITS = sequence(_LOGIT, IDS_LIMIT, least=1)
_VALUE = number(-1e9, 1e9)
_GOLDEN = record(
    {"prompt_ids": _IDS, "answer_ids": _IDS, "top_ids": _IDS, "skill_logits": _LOGITS, "base_logits": _LOGITS}
)
_GENERATION = record(
    {},
    {
        "max_new_tokens": whole(1, 2**20),
        "temperature": number(0, 10),
        "top_k": whole(0, 2**20),
        "top_p": number(1e-3, 1),
        "repetition_penalty": number(0.1, 10),
    },
)
_ROWS = whole(0, 2**40)
_MADE = record(
    {
        "how": one_of("learned", "proposed", "rebased"),
        "instruction": one_of("carried", "kept", "none"),
        "data": record({"rows": _ROWS, "dropped": _ROWS, "duplicates": _ROWS, "overlap": _ROWS}),
    }
)
_METRIC = record(
    {
        "dataset": DIGEST,
        "name": text(64, least=1),
        "split": text(64, least=1),
        "rows": whole(1, 2**40),
        "skill": _VALUE,
        "base": _VALUE,
        "date": _date,
    },
    {"lora": _VALUE},
)
_PROMPT: dict[str, Check] = {
    "generation": _GENERATION,
    "stop": sequence(text(200, least=1, controls="all"), 16),
}
_COMMON: dict[str, Check] = {
    "format": whole(1, FORMAT),
    "name": NAME,
    "version": VERSION,
    "description": text(4000, controls="\n\t"),
    "license": text(200, least=1, pattern=_SPDX, what="an SPDX licence expression"),
    "author": text(200),
    "created": _date,
    "backbone": DIGEST,
    "backbone_name": text(200),
    "adapter": DIGEST,
    "modules": DIGEST,
    "experts": whole(1, 64),
    "routing": _routing,
    "activation": one_of("always", "response"),
    "prompt": record(_PROMPT),
    "bounds": record({}, {kind: number(0, 1e7) for kind in STORED}),
    "golden": sequence(_golden, GOLDEN_LIMIT),
    "metrics": sequence(_METRIC, 64),
    "digest": DIGEST,
}
#: Format version -> the check of a manifest.
_RULES: dict[int, Check] = {
    1: record(
        {**_COMMON, "prompt": record({"system": SYSTEM, **_PROMPT})}, {"centroid": sequence(_LOGIT, 16_384, least=1)}
    ),
    2: record({**_COMMON, "interface": INTERFACE}, {"made": _MADE, "draft": DRAFT, "route": ROUTE}),
}
_OPTIONAL = ("made", "draft", "route", "centroid")
