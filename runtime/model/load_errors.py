"""Says in one plain sentence why ONNX Runtime cannot load a graph; its own texts quote C++ sources and signatures."""

from __future__ import annotations

import re

_LONGEST = 240  # characters
_STATUS = re.compile(r"\[ONNXRuntimeError\] : \d+ : \w+ : ")
_NOISE = (
    re.compile(r"^Load model from .*? failed: ?"),  # the caller names the file
    re.compile(r"\S+\.(?:cc|cpp|h|hpp):\d+ (?:\w+ (?=[A-Z]))?"),  # file and line, and a short name of a function
    re.compile(r"^(?:[\w:<>*&, ]+ )?[\w:~]+\((?:[^()]|\([^()]*\))*\)(?: const)? "),  # a signature
)
_PLAIN = (
    (
        re.compile(r"file_length: (\d+) are out of bounds"),
        r"the file of its weights has \1 bytes, fewer than the graph reads: it is truncated: copy the directory again",
    ),
    (
        re.compile(r"Protobuf parsing failed|No graph was found"),
        "the file is damaged or no ONNX graph: copy the directory again",
    ),
)


def plain_reason(error: Exception) -> str:
    """The cause named by an exception of ONNX Runtime, without status codes, source files and C++ signatures."""
    text = " ".join(str(error).split())
    for pattern, sentence in _PLAIN:
        if match := pattern.search(text):
            return match.expand(sentence)
    cause = _STATUS.split(text)[-1]
    for noise in _NOISE:
        cause = noise.sub("", cause)
    return cause if len(cause) <= _LONGEST else f"{cause[:_LONGEST]} ..."
