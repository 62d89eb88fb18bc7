"""Writes the model card of a skill for the Hugging Face Hub, from its manifest alone. Needs the extra `hub`.

The texts of a manifest are untrusted: the front matter is serialised by the Hub's own library, and on the page every
character with a meaning in Markdown or HTML is escaped.
"""

from __future__ import annotations

import re
import string
import unicodedata
from typing import Any

from lime_edge.common.extras import require_extra
from lime_edge.common.formatting import share, short, size
from lime_edge.skills.manifest import Metric
from lime_edge.skills.package import Skill

LIBRARY = "lime-edge"
_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)
_MARKS = str.maketrans({mark: f"\\{mark}" for mark in string.punctuation})
#: SPDX expressions, in lower case, that are licence identifiers of the Hub as well.
_LICENCES = """
afl-3.0 agpl-3.0 apache-2.0 artistic-2.0 bsd-2-clause bsd-3-clause bsd-3-clause-clear bsl-1.0 cc-by-2.0 cc-by-2.5
cc-by-3.0 cc-by-4.0 cc-by-nc-2.0 cc-by-nc-3.0 cc-by-nc-4.0 cc-by-nc-nd-3.0 cc-by-nc-nd-4.0 cc-by-nc-sa-2.0
cc-by-nc-sa-3.0 cc-by-nc-sa-4.0 cc-by-nd-4.0 cc-by-sa-3.0 cc-by-sa-4.0 cc0-1.0 cdla-permissive-1.0 cdla-permissive-2.0
cdla-sharing-1.0 ecl-2.0 epl-1.0 epl-2.0 eupl-1.1 eupl-1.2 gpl-2.0 gpl-3.0 isc lgpl-2.1 lgpl-3.0 lppl-1.3c mit mpl-2.0
ms-pl ncsa odbl-1.0 ofl-1.1 osl-3.0 pddl-1.0 postgresql unlicense wtfpl zlib
"""
_PAGE = """\
---
{front}
---

# {name}

{description}

A skill for lime-edge ([LiME](https://arxiv.org/abs/2604.02338)): {size} that turn one frozen model, with its shared
adapter, into a specialist. It contains no code, and works only with the model that it was made for.

    lime-edge pull REFERENCE
    lime-edge run MODEL PROMPT --skill {slug}

| what | value |
|---|---|
{facts}
{quality}{system}"""


def card_of(skill: Skill) -> str:
    """The text of README.md for the repository of a skill.

    Raises:
        MissingExtraError: The extra `hub` is not installed.
    """
    manifest = skill.manifest
    facts = {
        "version": manifest.version,
        "author": manifest.author or "unknown",
        "licence": manifest.license,
        "made": manifest.created,
        "base model": f"{manifest.backbone_name or 'unnamed'}, {short(manifest.backbone)}",
        "shared adapter": f"{short(manifest.adapter)}, module table {short(manifest.modules)}",
        "applies": "always" if manifest.activation == "always" else "from the first token of the answer on",
        "bounds": ", ".join(f"|{kind}| <= {bound:g}" for kind, bound in manifest.bounds.items()),
        "golden prompts": str(len(manifest.golden)),
        "digest": manifest.digest,
    }
    return _PAGE.format(
        front=_front_matter(skill),
        name=_plain(manifest.name),
        description=_paragraphs(manifest.description) or "No description.",
        size=size(skill.size),
        slug=manifest.name,
        facts="\n".join(_row(*fact) for fact in facts.items()),
        quality=_quality(manifest.metrics),
        system=_system(manifest.interface.system),
    )


def _front_matter(skill: Skill) -> str:
    with require_extra("hub"):
        from huggingface_hub import EvalResult, ModelCardData
    manifest = skill.manifest
    results = [
        EvalResult(
            task_type="text-generation",
            dataset_type="private",
            dataset_name=f"{metric['split']} {short(metric['dataset'])}",
            dataset_split=metric["split"],
            dataset_args={"sha256": metric["dataset"], "rows": metric["rows"]},
            metric_type=metric["name"],
            metric_value=metric["skill"],
        )
        for metric in manifest.metrics
    ]
    about: dict[str, Any] = {
        "library_name": LIBRARY,
        "tags": ["lime", "peft", "skill"],
        "pipeline_tag": "text-generation",
        **_licence(manifest.license),
    }
    if _REPOSITORY.fullmatch(manifest.backbone_name):
        about |= {"base_model": manifest.backbone_name, "base_model_relation": "adapter"}
    if results:
        names = list(dict.fromkeys(metric["name"] for metric in manifest.metrics))
        about |= {"model_name": manifest.name, "eval_results": results, "metrics": names}
    return str(ModelCardData(**about).to_yaml(line_break="\n")).strip()


def _licence(expression: str) -> dict[str, str]:
    """The Hub's metadata fields for an SPDX expression."""
    identifier = re.sub(r"-(only|or-later)$", "", expression.lower())
    if expression == "NOASSERTION":
        return {"license": "unknown"}
    if identifier in _LICENCES.split():
        return {"license": identifier}
    return {"license": "other", "license_name": expression}


def _quality(metrics: list[Metric]) -> str:
    if not metrics:
        return ""
    rows = [
        f"| {_plain(m['name'])} | {_plain(m['split'])} {short(m['dataset'])}, {m['rows']} rows, {m['date']} "
        f"| {share(m['base'])} | {share(m['skill'])} | {share(m['lora']) if 'lora' in m else ''} |"
        for m in metrics
    ]
    head = "\n## Measured by its author\n\n| metric | data | base | skill | LoRA |\n|---|---|---|---|---|\n"
    return head + "\n".join(rows) + "\n"


def _system(text: str | None) -> str:
    """The system text of the skill, verbatim in an indented code block."""
    if text is None:
        return ""
    lines = [f"    {_visible(line)}" for line in text.splitlines()]
    return "\n## Its system text\n\n" + "\n".join(lines) + "\n"


def _row(name: str, value: str) -> str:
    return f"| {name} | {_plain(value)} |"


def _paragraphs(text: str) -> str:
    return "\n".join(_plain(line.strip()) for line in text.splitlines())


def _plain(text: str) -> str:
    """Escape text for Markdown, which allows a backslash before every ASCII punctuation character."""
    return _visible(text).translate(_MARKS)


def _visible(text: str) -> str:
    """Replace invisible characters that change the display: controls, and marks of writing direction."""
    return "".join("\N{REPLACEMENT CHARACTER}" if unicodedata.category(c) in ("Cc", "Cf", "Cs") else c for c in text)
