"""The command `lime-edge serve`; it needs the extra `serve`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lime_edge.common.extras import require_extra
from lime_edge.errors import ConfigError

from .options import model_argument, path_type, runtime_options, trust_option

if TYPE_CHECKING:
    from lime_edge.runtime import Runtime
    from lime_edge.server.operations.server_settings import Limits
    from lime_edge.server.operations.skill_watcher import SkillWatcher


@click.command()
@model_argument
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", type=click.IntRange(0, 65535), default=8000, show_default=True, help="0: any free port.")
@click.option("--name", help="What clients call the base model.  [default: the name of DIR]")
@click.option(
    "--skills", "folders", multiple=True, type=path_type(), metavar="FOLDER", help="Also serve and watch these skills."
)
@click.option("--store", is_flag=True, help="Also serve and watch the installed skills.")
@click.option("--no-watch", is_flag=True, help="Load skills once, and do not look for changes.")
@click.option("--api-keys", type=path_type(), metavar="FILE", help="One [NAME] KEY a line.  [default: any key]")
@click.option("--insecure", is_flag=True, help="Listen on other addresses than loopback without API keys.")
@click.option("--certificate", type=path_type(), metavar="PEM", help="Serve over TLS.")
@click.option("--private-key", type=path_type(), metavar="PEM", help="The key of the certificate.")
@click.option("--adapters", type=path_type(), metavar="FOLDER", help="Let clients load skills from below this folder.")
@click.option("--references", is_flag=True, help="Let clients load skills by https:, hf: and oci: references.")
@click.option("--cors", "cors_origins", multiple=True, metavar="ORIGIN", help="Let pages of this origin use the API.")
@click.option("--page", is_flag=True, help="Serve a page at / that compares a skill with the base.")
@click.option("--log-prompts", is_flag=True, help="Write prompts and answers to the log.")
@click.option("--rows", type=click.IntRange(1), default=8, show_default=True, help="Answers that run together.")
@click.option("--waiting", type=click.IntRange(0), default=64, show_default=True, help="Requests that may wait.")
@click.option(
    "--queue-seconds",
    type=click.FloatRange(0, min_open=True),
    default=30,
    show_default=True,
    help="A request that waited this long is refused with 429.",
)
@click.option(
    "--request-seconds",
    type=click.FloatRange(0, min_open=True),
    default=600,
    show_default=True,
    help="An answer that takes this long ends early.",
)
@click.option(
    "--drain-seconds",
    type=click.FloatRange(0, min_open=True),
    default=30,
    show_default=True,
    help="What running answers get when the server stops.",
)
@click.option(
    "--body-bytes", type=click.IntRange(1), default=8 * 2**20, show_default=True, help="Largest body of a request."
)
@trust_option
@runtime_options
def serve(
    directory: Path,
    name: str | None,
    folders: tuple[Path, ...],
    store: bool,
    no_watch: bool,
    rows: int,
    waiting: int,
    queue_seconds: float,
    request_seconds: float,
    drain_seconds: float,
    body_bytes: int,
    trust: Path | None,
    device: str,
    threads: int | None,
    **chosen: Any,
) -> None:
    """Serve a model and its skills over HTTP, with the API of OpenAI (docs/server.md).

    Serves the skills in DIR/skills, and follows what changes there: new, updated and removed skills, and the trust
    policy. Logs to standard error, one JSON object a line. Ctrl-C lets running answers end.
    """
    with require_extra("serve"):
        from lime_edge.server import app, uvicorn_server
        from lime_edge.server.operations import request_log, server_settings
        from lime_edge.server.operations.api_keys import ApiKeys
        from lime_edge.server.served_models import checked_base_name

    limits = server_settings.Limits(
        running=rows,
        waiting=waiting,
        queue_seconds=queue_seconds,
        request_seconds=request_seconds,
        drain_seconds=drain_seconds,
        body_bytes=body_bytes,
    )
    base = checked_base_name(directory.resolve().name if name is None else name)
    if missing := [str(folder) for folder in folders if not folder.is_dir()]:
        raise ConfigError("--skills names what is no folder", missing)
    configured = server_settings.ServerSettings(limits=limits, **chosen)
    keys = None if configured.api_keys is None else ApiKeys.read(configured.api_keys)
    request_log.to_stream()
    runtime = _runtime(directory, device, threads, trust, limits)
    watcher = _watcher(runtime, base, directory, folders, store, trust)
    watcher.poll()
    made = app.create_app(runtime, configured, base, None if no_watch else watcher, keys)
    uvicorn_server.serve(made, configured)


def _runtime(directory: Path, device: str, threads: int | None, trust: Path | None, limits: Limits) -> Runtime:
    from lime_edge.runtime import Runtime, SchedulerSettings

    scheduler = SchedulerSettings(rows=limits.running, waiting=limits.waiting, patience=limits.queue_seconds)
    return Runtime.load(directory, device, threads, trust=trust, scheduler=scheduler)


def _watcher(
    runtime: Runtime, base: str, directory: Path, folders: tuple[Path, ...], store: bool, trust: Path | None
) -> SkillWatcher:
    from lime_edge.contract.names import SKILLS_FOLDER
    from lime_edge.server.operations.skill_watcher import FolderSource, SkillWatcher, Source, StoreSource
    from lime_edge.server.served_models import is_reserved
    from lime_edge.store.store import Store

    sources: list[Source] = [FolderSource(folder) for folder in (directory / SKILLS_FOLDER, *folders)]
    if store:
        sources.append(StoreSource(Store()))
    return SkillWatcher(runtime, sources, trust, lambda skill: is_reserved(base, skill))
