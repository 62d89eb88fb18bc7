"""`lime-edge sign` and `verify`: who made a skill, and whether to believe it. Heavy imports inside."""

from __future__ import annotations

from pathlib import Path

import click

from lime_edge.reports.tables import report

from .options import json_option, path_type

_FAILED = 1  # not everything holds that was asked


@click.command()
@click.argument("skill", type=path_type())
@click.option("--key", required=True, type=path_type(), help="Private key, PEM: P-256, P-384 or P-521.")
@click.option(
    "--password", envvar="LIME_EDGE_KEY_PASSWORD", help="Of the key.  [default: $LIME_EDGE_KEY_PASSWORD, else none]"
)
@click.option("-o", "--output", type=path_type(), metavar="SIG", help="The signature.  [default: SKILL.sig]")
def sign(skill: Path, key: Path, password: str | None, output: Path | None) -> None:
    """Sign a package with OpenSSF Model Signing, offline.

    The signature lies beside the package, holds for these bytes under this file name, and is verified by `lime-edge
    verify` and by `model_signing verify key`. docs/trust.md says how to make a key.
    """
    from lime_edge.trust.signing import sign_skill

    written, public = sign_skill(skill, key, password, output)
    click.echo(f"{written}, signed with the key {public.id} ({public.curve})")


@click.command()
@click.argument("skill", type=path_type())
@click.option("--signature", type=path_type(), metavar="SIG", help="The signature.  [default: SKILL.sig]")
@click.option("--key", type=path_type(), metavar="PUB", help="Public key, PEM, that has to have signed it.")
@click.option("--trust", type=path_type(), metavar="POLICY", help="Trust policy that has to admit it.")
@click.option("--model", type=path_type(), metavar="DIR", help="Exported model that it has to fit, and to work on.")
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
    """Judge a package: sound, signed, made for this model and working on it.

    Exit code 0 means that everything holds that was asked, 1 that something does not.
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
