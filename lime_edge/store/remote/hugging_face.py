"""Fetches skills from the Hugging Face Hub and pushes them, with huggingface_hub. Needs the extra `hub`.

Cache, resumption, tokens and settings are those of that library.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lime_edge.common.extras import require_extra
from lime_edge.errors import FetchError, LimeError
from lime_edge.skills.package import FILE_LIMIT, read_package

from .references import Reference


def fetch_hub(reference: Reference, suffix: str, signature_limit: int) -> tuple[bytes, bytes | None]:
    """Fetch a package and its signature from the same commit.

    Args:
        reference: An hf: reference.
        suffix: Appended to the file name to form the name of the signature.
        signature_limit: The largest signature, in bytes.

    Returns:
        The package and its signature; None if there is no signature.

    Raises:
        FetchError: The file is missing or too large, or the Hub cannot be reached.
    """
    with require_extra("hub"):
        from huggingface_hub.errors import EntryNotFoundError
    with _hub_errors(reference, "fetched"):
        path, commit = _download(reference, reference.file, reference.revision, FILE_LIMIT)
        try:
            signature, _ = _download(reference, reference.file + suffix, commit, signature_limit)
        except EntryNotFoundError:
            return read_package(path), None
        return read_package(path), signature.read_bytes()


def push_hub(reference: Reference, data: bytes, signature: bytes | None, suffix: str, card: str | None) -> None:
    """Upload a skill in one commit; the repository must exist.

    Args:
        reference: An hf: reference.
        data, signature: The package and, if there is one, its signature.
        suffix: As in `fetch_hub`.
        card: The text of README.md; None keeps the README.md of the repository.

    Raises:
        FetchError: The Hub refuses the upload or cannot be reached.
    """
    with require_extra("hub"):
        from huggingface_hub import CommitOperationAdd, HfApi
    files = {reference.file: data}
    if signature is not None:
        files[reference.file + suffix] = signature
    if card is not None:
        files["README.md"] = card.encode()
    with _hub_errors(reference, "pushed"):
        HfApi().create_commit(
            reference.repo,
            [CommitOperationAdd(name, content) for name, content in files.items()],
            commit_message=f"Upload {reference.file}",
            revision=reference.revision,
        )


def _download(reference: Reference, file: str, revision: str, limit: int) -> tuple[Path, str]:
    from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url

    about = get_hf_file_metadata(hf_hub_url(reference.repo, file, revision=revision))
    if about.size is None or about.size > limit:
        raise FetchError(f"{reference.repo}/{file} has {about.size} bytes; expected at most {limit}")
    commit = about.commit_hash or revision
    return Path(hf_hub_download(reference.repo, file, revision=commit)), commit


@contextmanager
def _hub_errors(reference: Reference, done: str) -> Iterator[None]:
    """Turn every exception of the client into a FetchError; `done` is "fetched" or "pushed"."""
    with require_extra("hub"):
        from huggingface_hub.errors import EntryNotFoundError
    try:
        yield
    except LimeError:
        raise
    except EntryNotFoundError as error:
        raise FetchError(f"{reference} cannot be {done}: the repository has no such file or revision") from error
    except Exception as error:  # the hub client raises a dozen unrelated types
        raise FetchError(f"{reference} cannot be {done}: {error}") from error
