"""The commands `lime-edge sign` and `verify`: sign a package, and check a package and its signature."""

from __future__ import annotations

from pathlib import Path

import click

from lime_edge.cli.options import json_option, path_type
from lime_edge.reports.tables import report, say

_FAILED = 1  # a requested check fails


@click.command()
@click.argument("skill", type=path_type())
@click.option("--key", required=True, type=path_type(), help="Private key in PEM: P-256, P-384 or P-521.")
@click.option(
    "--password",
    envvar="LIME_EDGE_KEY_PASSWORD",
    help="Password of the key.  [default: $LIME_EDGE_KEY_PASSWORD, else none]",
)
@click.option("-o", "--output", type=path_type(), metavar="SIG", help="The signature.  [default: SKILL.sig]")
def sign(skill: Path, key: Path, password: str | None, output: Path | None) -> None:
    """Sign a package with OpenSSF Model Signing, offline.

    The signature is a file beside the package and covers its bytes and its file name. `lime-edge verify` and
    `model_signing verify key` verify it. docs/trust.md explains how to create a key.
    """
    from lime_edge.trust.signing import sign_skill

    written, public = sign_skill(skill, key, password, output)
    say(f"{written}, signed with the key {public.id} ({public.curve})\n")


@click.command()
@click.argument("skill", type=path_type())
@click.option("--signature", type=path_type(), metavar="SIG", help="The signature.  [default: SKILL.sig]")
@click.option("--key", type=path_type(), metavar="PUB", help="Public key in PEM that must have signed the package.")
@click.option("--trust", type=path_type(), metavar="POLICY", help="Trust policy that must admit the package.")
@click.option("--model", type=path_type(), metavar="DIR", help="Exported model that the skill must fit and work on.")
@json_option
@click.pass_context
def verify(
    context: click.Context,
    skill: Path,
    signature: Path | None,
    key: Path | None,
    trust: Path | None,
    model: Path | None,
    target: str | None,
) -> None:
    """Verify a package: that it is sound, signed, made for a model and working on it.

    Given the directory of an exported model instead of a package, it compares the model's files with their digests.

    The exit code is 0 if every requested check holds, and 1 if one fails.
    """
    from lime_edge.audit import verify

    if key is not None and trust is not None:
        raise click.UsageError("--key and --trust exclude each other: a policy names its own keys")
    if signature is not None and key is None and trust is None:
        raise click.UsageError("--signature needs --key or --trust: a signature proves nothing without a key")
    found = verify.verify(verify.Asked(skill, signature, verify.judge(key, trust), model))
    report(*found.describe(), target)
    if not found.hold:
        context.exit(_FAILED)
