"""Writes what the tests of lime-edge-web need: `python -m tests.tools.platforms.web_fixtures FOLDER [--demo MODEL]`.

Everything comes from the Python package: tiny models for browsers, skills and the answers that they must give,
packages that must be refused, rows of random skills as bytes, and signatures. With ``--demo`` also an exported model
with skills.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import numpy as np

from lime_edge.contract.model import ModelContract
from lime_edge.contract.model_files import file_digest
from lime_edge.errors import LimeError
from lime_edge.exporters.web.web_export import export_web
from lime_edge.runtime import Runtime
from lime_edge.skills.compatibility import check_skill
from lime_edge.skills.package import read_skill
from lime_edge.trust.keys import PublicKey
from lime_edge.trust.signing import sign_skill
from tests.support.runtime_models import contract
from tests.support.web_models import converted, lite_skill, source
from tests.tools.corpus import write_corpus

PACKED = 200  # random skills whose rows are compared byte for byte
#: SHA-256 of the rows in float32 and in float16, one pair a skill; the same file is read by the tests in TypeScript.
PACKED_FILE = Path(__file__).parents[2] / "exporters" / "web" / "packed_rows.json"
_PROMPTS = ("Hello", "is it so?", "é中😀 <|im_end|> \n end")
_CHOICES = ("yes", "no", "not yet")


def random_skill(folder: Path, number: int) -> Path:
    """Random skill `number` of the comparison; odd ones are stored as F16."""
    path = folder / f"random-{number:03}.lime"
    return lite_skill(path, 1000 + number, "f16" if number % 2 else "i8", size=10.0 ** (number % 7 - 4))


def packed_digests(path: Path, model: ModelContract) -> list[str]:
    """SHA-256 (hex) of a skill's row in float32 and in float16."""
    row = np.zeros(model.table.row_size, np.float32)
    segments = model.table.pack(read_skill(path).tensors)
    row[: segments.size] = segments.ravel()
    return [hashlib.sha256(row.astype(dtype).tobytes()).hexdigest() for dtype in (np.float32, np.float16)]


def write_fixtures(folder: Path, demo: Path | None = None) -> None:
    """Fill an empty folder."""
    model = contract(source())
    for precision in ("fp32", "int4"):
        shutil.copytree(converted(precision), folder / f"tiny-{precision}")
    _write_optional(folder / "optional")
    skills = folder / "skills"
    skills.mkdir()
    lite_skill(skills / "always.lime", 1, activation="always")
    lite_skill(skills / "response.lime", 2, activation="response")
    lite_skill(skills / "stopping.lime", 3, prompt={"generation": {"max_new_tokens": 5}, "stop": ["e"]})
    _write_refused(folder, skills, model)
    (folder / "expected.json").write_text(json.dumps(_expected(source(), [*skills.glob("*.lime")]), indent=1), "utf-8")
    packed = folder / "packed"
    packed.mkdir()
    for number in range(PACKED):
        random_skill(packed, number)
    shutil.copyfile(PACKED_FILE, folder / "packed_rows.json")
    write_corpus(folder / "corpus")
    _write_signed(folder / "signed", skills / "always.lime")
    if demo is not None:
        export_web(demo, folder / "demo")
        found = _expected(demo, sorted((demo / "skills").glob("*.lime")), demo_prompts(demo), 32)
        (folder / "demo.json").write_text(json.dumps(found, indent=1), "utf-8")


def demo_prompts(demo: Path) -> dict[str, list[str]]:
    """The examples of each skill, by its name."""
    skills = [read_skill(path) for path in sorted((demo / "skills").glob("*.lime"))]
    return {skill.manifest.name: list(skill.interface.examples) for skill in skills}


def _expected(
    directory: Path, skills: Sequence[Path], prompts: dict[str, list[str]] | None = None, count: int = 12
) -> list[dict[str, Any]]:
    """What the runtime of this package answers."""
    runtime = Runtime.load(directory, threads=1)
    for path in skills:
        runtime.load_skill(path)
    found: list[dict[str, Any]] = []
    for name in [None, *(info.name for info in runtime.skills())]:
        for prompt in _PROMPTS if prompts is None else prompts.get(str(name), [])[:2]:
            given = runtime.generate(prompt, name, max_new_tokens=count)
            chosen = runtime.choose(prompt, list(_CHOICES), name)
            found.append(
                {
                    "skill": name,
                    "prompt": prompt,
                    "count": count,
                    "text": given.text,
                    "ids": list(given.token_ids),
                    "reason": given.finish_reason,
                    "choices": list(_CHOICES),
                    "scores": [chosen.scores[choice] for choice in _CHOICES],
                }
            )
    return found


def _write_optional(folder: Path) -> None:
    """A directory whose graph has optional inputs, for which onnxruntime-node ignores values: it must be refused."""
    shutil.copytree(converted(), folder)
    names = ("model.onnx", "model.onnx.data")
    for name in names:
        shutil.copyfile(source() / name, folder / name)
    changed = replace(
        contract(folder),
        files=tuple((name, file_digest(folder / name)) for name in names),
        sizes=tuple((name, (folder / name).stat().st_size) for name in names),
    )
    (folder / "lime.json").write_text(changed.to_json(), "utf-8")


def _write_refused(folder: Path, skills: Path, model: ModelContract) -> None:
    """Valid packages for other models, and a damaged one, with the class and the faults of the error in Python."""
    refused = folder / "refused"
    refused.mkdir()
    lite_skill(refused / "other-backbone.lime", 4, backbone="0" * 64)
    lite_skill(refused / "other-modules.lime", 5, modules="1" * 64, adapter="2" * 64)
    lite_skill(refused / "too-large.lime", 6, size=30.0)
    tampered = bytearray((skills / "always.lime").read_bytes())
    tampered[-3] ^= 1
    (refused / "tampered.lime").write_bytes(tampered)
    index = {}
    for path in sorted(refused.glob("*.lime")):
        try:
            check_skill(read_skill(path), replace(model, precision="fp32"))
        except LimeError as error:
            index[path.name] = {"error": type(error).__name__, "faults": list(error.faults)}
    (folder / "refused.json").write_text(json.dumps(index, indent=1), "utf-8")


def _write_signed(folder: Path, skill: Path) -> None:
    from cryptography.hazmat.primitives import serialization as form
    from cryptography.hazmat.primitives.asymmetric import ec

    folder.mkdir()
    for curve in (ec.SECP256R1(), ec.SECP384R1(), ec.SECP521R1()):
        key = ec.generate_private_key(curve)
        secret = folder / "key.pem"
        secret.write_bytes(
            key.private_bytes(form.Encoding.PEM, form.PrivateFormat.PKCS8, form.NoEncryption()),
        )
        place = folder / curve.name
        place.mkdir()
        shutil.copyfile(skill, place / skill.name)
        _, public = sign_skill(place / skill.name, secret)
        pem = key.public_key().public_bytes(form.Encoding.PEM, form.PublicFormat.SubjectPublicKeyInfo)
        assert PublicKey.from_pem(pem) == public
        (place / "public.pem").write_bytes(pem)
        (place / "id.txt").write_text(public.id)
        secret.unlink()


@click.command()
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
@click.option("--demo", type=click.Path(exists=True, file_okay=False, path_type=Path), help="An exported model.")
def main(folder: Path, demo: Path | None) -> None:
    """Write the fixtures to a folder that is empty or does not exist yet."""
    if folder.exists() and any(folder.iterdir()):
        raise click.ClickException(f"{folder} is not empty")
    folder.mkdir(parents=True, exist_ok=True)
    write_fixtures(folder, demo)
    click.echo(f"the fixtures of lime-edge-web are in {folder}")


if __name__ == "__main__":
    main()
