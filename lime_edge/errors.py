"""Everything that can go wrong, in one tree; nothing else escapes from bad input.

The tree::

    LimeError
    ├── ConfigError         (ValueError)    a setting is out of range or unknown
    ├── DataError           (ValueError)    a JSONL file cannot be used
    ├── ExportError         (ValueError)    a checkpoint cannot be exported
    ├── ModelError          (ValueError)    an exported model directory cannot be used
    ├── DeviceError         (RuntimeError)  the device asked for is not there
    ├── MissingExtraError   (ImportError)   an optional dependency is not installed
    ├── PolicyError         (ValueError)    a trust policy or a key of it cannot be used
    ├── StoreError          (RuntimeError)  the store of installed skills cannot be used
    ├── FetchError          (RuntimeError)  what a reference names cannot be had, or not pushed
    └── SkillError
        ├── SkillFormatError    (ValueError)  the file is not a sound skill package
        ├── SkillMismatchError  (ValueError)  sound, but made for something else
        ├── SkillProofError     (ValueError)  its golden prompts do not reproduce
        ├── SkillTrustError     (ValueError)  its signature is missing or wrong, or the trust policy refuses it
        ├── SkillConflictError  (RuntimeError) another generation is loaded than the caller expected
        ├── SkillVersionError   (ValueError)  it may not take the place of what is installed
        └── UnknownSkillError   (KeyError)    no skill of that name is loaded, or installed
"""

from __future__ import annotations

from collections.abc import Sequence


class LimeError(Exception):
    """Root of every error that lime-edge raises on purpose.

    Args:
        message: One line that says what failed.
        faults: Every fault found, each with what was expected and what to do.
    """

    def __init__(self, message: str, faults: Sequence[str] = ()) -> None:
        self.message = message
        self.faults = tuple(faults)
        super().__init__("\n  - ".join([message, *self.faults]))

    def __str__(self) -> str:  # KeyError would print the repr
        return str(self.args[0])


class ConfigError(LimeError, ValueError):
    """A setting is unknown, out of range, or contradicts another."""


class DataError(LimeError, ValueError):
    """A data file is missing, unreadable, or holds rows that cannot be used."""


class ExportError(LimeError, ValueError):
    """A checkpoint holds something that an exported graph cannot express."""


class ModelError(LimeError, ValueError):
    """An exported model directory is incomplete, damaged, or of another version."""


class DeviceError(LimeError, RuntimeError):
    """The execution provider asked for is not available."""


class MissingExtraError(LimeError, ImportError):
    """A feature needs an optional dependency; the message holds the pip command."""


class PolicyError(LimeError, ValueError):
    """A trust policy, or a key for signatures, is missing, damaged, or contradicts itself."""


class StoreError(LimeError, RuntimeError):
    """The store of installed skills is damaged, locked, or not to be written."""


class FetchError(LimeError, RuntimeError):
    """What a reference names cannot be fetched or pushed, or is not what was asked for."""


class SkillError(LimeError):
    """Anything about a skill."""


class SkillFormatError(SkillError, ValueError):
    """The file is not a sound skill package."""


class SkillMismatchError(SkillError, ValueError):
    """The package is sound, but was made for another model."""


class SkillProofError(SkillError, ValueError):
    """The golden prompts of a package do not reproduce on this model."""


class SkillTrustError(SkillError, ValueError):
    """The signature is missing or wrong, or the trust policy refuses the skill."""


class SkillConflictError(SkillError, RuntimeError):
    """Another generation of a skill is loaded than the caller expected: somebody else changed it first."""


class SkillVersionError(SkillError, ValueError):
    """The version may not take the place of what is installed."""


class UnknownSkillError(SkillError, KeyError):
    """No skill of that name is loaded, or installed."""
