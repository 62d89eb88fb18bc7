"""Standard input, output and errors of a command: text in any encoding, closed streams, readers that stop early."""

from __future__ import annotations

import io
import os
import sys
from typing import NoReturn

from lime_edge.errors import DataError


def prepare() -> None:
    """Make the standard streams usable whatever they are; called before a command reads or writes.

    A closed stream becomes the null device. A character that the encoding of standard output lacks becomes "?".
    Undecodable input arrives as lone surrogates, which `checked` reports: one bad line does not spoil the next.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115  (open while the process runs)
    for stream, errors in ((sys.stdin, "surrogateescape"), (sys.stdout, "replace")):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=errors)


def abandon_output(error: OSError) -> NoReturn:
    """End the program because standard output cannot be written; what is left of it is dropped."""
    sys.stderr.write(f"Error: standard output cannot be written: {error.strerror or error}\n")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # Python writes what is left when it ends
    raise SystemExit(1)


def checked(text: str, where: str) -> str:
    """Return text that was read from standard input, or a command line, if all of it could be decoded.

    Raises:
        DataError: It contains bytes that are not text; names the first.
    """
    for position, character in enumerate(text, 1):
        if "\ud800" <= character <= "\udfff":
            byte = f"byte 0x{ord(character) - 0xDC00:02x}" if "\udc80" <= character <= "\udcff" else ascii(character)
            encoding = getattr(sys.stdin, "encoding", None) or "utf-8"
            raise DataError(f"{where} is not text in {encoding}: character {position} is {byte}; convert it first")
    return text


def read_input() -> str:
    """All of standard input.

    Raises:
        DataError: It cannot be read, or is not text.
    """
    try:
        return checked(sys.stdin.read(), "standard input")
    except OSError as error:
        raise DataError(f"standard input cannot be read: {error.strerror or error}") from error
