"""Model cards from ordinary and from hostile manifests."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import ModelCard
from markdown_it import MarkdownIt

from lime_edge.skills.interface import Interface
from lime_edge.skills.package import Skill, write_skill
from lime_edge.store.model_card import card_of
from tests.support.faults.malformed import manifest, vectors

#: Tries to break out of the front matter, the table, the paragraph and Markdown itself.
HOSTILE = (
    "---\nlicense: mit\n--- # x ](javascript:alert(1)) <script>alert(1)</script> "
    "![a](https://evil.example/a.png) "
    "| a | b | `code` **bold** https://evil.example www.evil.example &lt; "
    "\\\n\n    # indented\n1. a\n- b\n> c\n```\n~~~"
    "\n===\n<!-- -->\n[a]: https://evil.example\n\u202eevil\u2066 {{template}} {size} %s"
)
LINE = HOSTILE.replace("\n", " ")[:200]


def skill(path: Path, **changes: Any) -> Skill:
    return write_skill(path / "a.lime", manifest(**changes), vectors())


def parsed(text: str) -> Any:
    """The front matter, parsed and validated by the Hub's library."""
    return ModelCard(text, ignore_metadata_errors=False).data


def test_front_matter(tmp_path: Path) -> None:
    data = parsed(card_of(skill(tmp_path, backbone_name="HuggingFaceTB/SmolLM2-135M-Instruct")))
    assert data.base_model == "HuggingFaceTB/SmolLM2-135M-Instruct"
    assert data.base_model_relation == "adapter"
    assert (data.library_name, data.license, data.tags) == ("lime-edge", "apache-2.0", ["lime", "peft", "skill"])
    (result,) = data.eval_results
    assert (result.metric_type, result.metric_value, result.dataset_split) == ("accuracy", 0.75, "test")
    assert result.dataset_args == {"sha256": "d" * 64, "rows": 64}
    assert data.metrics == ["accuracy"]


@pytest.mark.parametrize(
    ("expression", "wanted"),
    [
        ("MIT", ("mit", None)),
        ("GPL-3.0-or-later", ("gpl-3.0", None)),
        ("NOASSERTION", ("unknown", None)),
        ("MIT OR Apache-2.0", ("other", "MIT OR Apache-2.0")),
        ("LicenseRef-mine", ("other", "LicenseRef-mine")),
    ],
)
def test_licences_in_the_words_of_the_hub(tmp_path: Path, expression: str, wanted: tuple[str, str | None]) -> None:
    data = parsed(card_of(skill(tmp_path, license=expression, metrics=[])))
    assert (data.license, data.license_name) == wanted
    assert data.eval_results is None


def test_a_backbone_that_is_no_repository_is_not_claimed(tmp_path: Path) -> None:
    for name in ("", "tiny", "a/b/c", "../b", "a/b\u200b", "a/b: c"):
        data = parsed(card_of(skill(tmp_path, backbone_name=name)))
        assert (data.base_model, data.to_dict().get("base_model_relation")) == (None, None)


def test_hostile_texts_stay_texts(tmp_path: Path) -> None:
    metric = {**manifest().metrics[0], "name": "a: [b]\u2028|<b>", "split": "- x: {y} #\u202e"}
    made = skill(
        tmp_path,
        description=HOSTILE,
        author=LINE,
        backbone_name=LINE,
        license="MIT - (x)",
        metrics=[metric],
        interface=Interface(system=f"~~~\n```\n</code>{HOSTILE}\r# heading\v\u2028# x"),
    )
    text = card_of(made)
    data = parsed(text)
    assert data.license == "other"
    assert data.eval_results[0].metric_type == metric["name"]
    assert data.eval_results[0].dataset_split == metric["split"]
    body = text.split("\n---\n", 1)[1]
    tokens = MarkdownIt("commonmark").enable("table").parse(body)
    kinds = {token.type for token in tokens} | {child.type for token in tokens for child in token.children or ()}
    assert kinds.isdisjoint({"html_block", "html_inline", "image", "fence", "code_inline", "bullet_list_open"})
    assert kinds.isdisjoint({"ordered_list_open", "blockquote_open", "strong_open", "em_open", "hr"})
    links = [child.attrs["href"] for token in tokens for child in token.children or () if child.type == "link_open"]
    assert links == ["https://arxiv.org/abs/2604.02338"]
    headings = [after.content for token, after in pairwise(tokens) if token.type == "heading_open"]
    assert headings == ["tiny", "Measured by its author", "Its system text"]
    cells = [token for token in tokens if token.type in ("td_open", "th_open")]
    assert len(cells) == 2 * 11 + 5 * 2
    shown = "".join(child.content for token in tokens for child in token.children or () if child.type == "text")
    assert "<script>alert(1)</script>" in shown  # as text
    assert not {"\u202e", "\u2066"} & set(body)


def test_a_card_needs_no_description_metrics_or_prompt(tmp_path: Path) -> None:
    text = card_of(skill(tmp_path, description="", author="", metrics=[], golden=[], interface=Interface()))
    assert "No description." in text
    assert "## " not in text
