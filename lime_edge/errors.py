"""Every error that lime-edge raises on purpose, in one tree. Bad input raises nothing else.

The tree::

    LimeError
    ├── ConfigError         (ValueError)    a setting is out of range or unknown
    ├── DataError           (ValueError)    a data file cannot be used
    ├── ExportError         (ValueError)    a checkpoint cannot be exported
    ├── ModelError          (ValueError)    an exported model directory cannot be used
    ├── DeviceError         (RuntimeError)  the requested device is not available
    ├── MissingExtraError   (ImportError)   an optional dependency is not installed
    ├── PolicyError         (ValueError)    a trust policy or a key in it cannot be used
    ├── StoreError          (RuntimeError)  the store of installed skills cannot be used
    ├── FetchError          (RuntimeError)  the target of a reference cannot be fetched or pushed
    ├── StoppedError        (RuntimeError)  a request without a partial result was cancelled or timed out
    ├── OverloadedError     (RuntimeError)  too many requests wait for the model: try again later
    └── SkillError
        ├── SkillFormatError    (ValueError)  the file is not a valid skill package
        ├── SkillMismatchError  (ValueError)  the package is valid, but made for another model
        ├── SkillProofError     (ValueError)  its golden prompts do not reproduce
        ├── SkillTrustError     (ValueError)  its signature is missing or wrong, or the trust policy refuses it
        ├── SkillConflictError  (RuntimeError) the loaded generation is not the one expected
        ├── SkillVersionError   (ValueError)  it may not replace the installed version
        └── UnknownSkillError   (KeyError)    no skill of that name is loaded or installed
"""

from __future__ import annotations

from collections.abc import Sequence


class LimeError(Exception):
    """Root of every error that lime-edge raises on purpose.

    Args:
        message: One line that says what failed.
        faults: Every fault found, each with the expected value and what to do.
    """

    def __init__(self, message: str, faults: Sequence[str] = ()) -> None:
        self.message = message
        self.faults = tuple(faults)
        super().__init__("\n  - ".join([message, *self.faults]))

    def __str__(self) -> str:  # KeyError would print the repr
        return str(self.args[0]).encode(errors="backslashreplace").decode()  # a path can hold lone surrogates


class ConfigError(LimeError, ValueError):
    """A setting is unknown, out of range, or contradicts another."""


class DataError(LimeError, ValueError):
    """A data file is missing, unreadable, or holds rows that cannot be used."""


class ExportError(LimeError, ValueError):
    """A checkpoint holds something that an exported graph cannot express."""


class ModelError(LimeError, ValueError):
    """An exported model directory is incomplete, damaged, or of another version."""


class DeviceError(LimeError, RuntimeError):
    """The requested execution provider is not available."""


class MissingExtraError(LimeError, ImportError):
    """A feature needs an optional dependency; the message contains the pip command."""


class PolicyError(LimeError, ValueError):
    """A trust policy or a signature key is missing, damaged or contradicts itself."""


class StoreError(LimeError, RuntimeError):
    """The store of installed skills is damaged, locked or not writable."""


class FetchError(LimeError, RuntimeError):
    """The target of a reference cannot be fetched or pushed, or is not the requested one."""


class StoppedError(LimeError, RuntimeError):
    """A request whose result is of no use in part was cancelled, or its time was over.

    Args:
        message: What was stopped.
        reason: ``"cancelled"`` or ``"timeout"``.
    """

    def __init__(self, message: str, reason: str) -> None:
        self.reason = reason
        super().__init__(message)


class OverloadedError(LimeError, RuntimeError):
    """Too many requests are waiting for the model, or this one has waited too long.

    Args:
        message: What is full, and when to try again.
        retry_after: Seconds after which trying again makes sense.
    """

    def __init__(self, message: str, retry_after: float) -> None:
        self.retry_after = retry_after
        super().__init__(message)


class SkillError(LimeError):
    """Root of the errors about a skill."""


class SkillFormatError(SkillError, ValueError):
    """The file is not a valid skill package."""


class SkillMismatchError(SkillError, ValueError):
    """The package is valid, but was made for another model."""


class SkillProofError(SkillError, ValueError):
    """The golden prompts of a package do not reproduce on this model."""


class SkillTrustError(SkillError, ValueError):
    """The signature is missing or wrong, or the trust policy refuses the skill."""


class SkillConflictError(SkillError, RuntimeError):
    """The loaded generation of a skill is not the one the caller expected: someone else replaced it first."""


class SkillVersionError(SkillError, ValueError):
    """The version may not replace the installed one."""


class UnknownSkillError(SkillError, KeyError):
    """No skill of that name is loaded or installed."""
