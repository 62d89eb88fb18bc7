"""What the keys of a record mean: the forms in which people keep examples, each turned into messages and an answer.

docs/data.md lists the same keys for people.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from lime_edge.common.strict_json import show
from lime_edge.contract.content_parts import content_faults
from lime_edge.contract.conversation import ROLES

from .row_media import KEYS, media_of, placed

#: Names of the prompt and of the answer. The first is ours and wins; of the others, a record may have one.
PROMPT_KEYS = ("prompt", "question", "input", "text")
ANSWER_KEYS = ("answer", "completion", "response", "output", "label")
_ALPACA_INPUTS = ("input", "context")  # the second is Dolly's name
_SHAREGPT_ROLES = {"human": "user", "gpt": "assistant", **{role: role for role in ROLES}}

#: Keys that change what a row asks for but are not read, and what to do about them.
_UNREAD = {
    "context": "put its text into the prompt",
    "passage": "put its text into the prompt",
    "history": "write earlier turns as messages",
    "tools": "tool definitions are not learned",
    "functions": "tool definitions are not learned",
}
_LONGEST_KEY = 40  # of keys that may be misspelt: comparing long texts takes long
_NEAR = 0.75  # similarity from which a key counts as misspelt


class Example(NamedTuple):
    """What a record says, and the form in which it says it."""

    messages: tuple[dict[str, Any], ...]
    answer: str
    choices: tuple[str, ...]
    form: str
    unread: tuple[str, ...]  # keys that have no meaning here


def example_of(record: Any) -> Example:
    """Interpret one record.

    Raises:
        ValueError: The record cannot be used; names every fault in it.
    """
    if not isinstance(record, dict):
        hint = "; a JSON array needs the extension .json" if isinstance(record, list) else ""
        raise ValueError(f"expected an object, found {type(record).__name__}{hint}")
    given = {key: value for key, value in record.items() if value is not None}
    found = [key for key in FORMS if key in given]
    if len(found) > 1:
        raise ValueError(f"has the keys {' and '.join(map(repr, found))}, which are different forms; expected one")
    form, keys, read = FORMS[found[0]] if found else FORMS["prompt"]
    faults: list[str] = []
    media = media_of(given, faults)
    messages, answer = read(given, faults)
    messages = _with_media(messages, media, faults)
    choices = _choices(given.get("choices"), answer, faults)
    messages = _with_system(given.get("system"), messages, faults)
    keys = (*keys, *KEYS, "choices", "system")
    faults += [
        f"{key!r} is not read: {advice}" for key, advice in _UNREAD.items() if given.get(key) and key not in keys
    ]
    unread = [str(key) for key in given if key not in keys and key not in _UNREAD]
    faults += _misspelt(unread, [*_missing(keys, given), *(() if found else FORMS)])
    if faults:
        raise ValueError("; ".join(faults))
    return Example(tuple(messages), answer, tuple(choices), form, tuple(unread))


def _pair(record: Mapping[str, Any], faults: list[str]) -> tuple[list[dict[str, Any]], str]:
    alone = record.get("prompt") == "" and any(record.get(key) for key in KEYS)  # the picture is the whole request
    prompt = "" if alone else _one_of(record, PROMPT_KEYS, "prompt", faults)
    return [{"role": "user", "content": prompt}], _one_of(record, ANSWER_KEYS, "answer", faults)


def _alpaca(record: Mapping[str, Any], faults: list[str]) -> tuple[list[dict[str, Any]], str]:
    parts = [_text("'instruction'", record["instruction"], faults)]
    parts += [_text(repr(key), record[key], faults) for key in _ALPACA_INPUTS if record.get(key, "") != ""]
    if len(parts) > 2:
        faults.append(f"has both {' and '.join(map(repr, _ALPACA_INPUTS))}; expected one")
    answer = _one_of(record, tuple(dict.fromkeys(("output", *ANSWER_KEYS))), "output", faults)
    return [{"role": "user", "content": "\n\n".join(parts)}], answer


def _conversation(key: str) -> Callable[[Mapping[str, Any], list[str]], tuple[list[dict[str, Any]], str]]:
    def read(record: Mapping[str, Any], faults: list[str]) -> tuple[list[dict[str, Any]], str]:
        turns = record[key]
        if not isinstance(turns, list):
            faults.append(f"{key!r} is {show(turns)}; expected a list of messages")
            return [], ""
        found = [_message(f"message {number}", turn, faults) for number, turn in enumerate(turns, 1)]
        if not faults and (len(found) < 2 or found[-1]["role"] != "assistant"):
            faults.append(f"{key!r} must end with the assistant's answer and have at least one message before it")
        if turns and isinstance(turns[-1], dict) and turns[-1].get("weight") == 0:
            faults.append("the last message has the weight 0; expected the answer that is to be learned")
        answer = found[-1]["content"] if found else ""
        if not isinstance(answer, str):
            faults.append(f"the answer is {show(answer)}; expected text")
            answer = ""
        return found[:-1], answer

    return read


#: Key that marks a form -> name of the form, the keys that it has, and its reader.
FORMS: dict[str, tuple[str, tuple[str, ...], Callable[..., tuple[list[dict[str, Any]], str]]]] = {
    "messages": ("messages", ("messages",), _conversation("messages")),
    "conversations": ("ShareGPT", ("conversations",), _conversation("conversations")),
    "instruction": ("Alpaca", ("instruction", *_ALPACA_INPUTS, *ANSWER_KEYS), _alpaca),
    "prompt": ("prompt and answer", (*PROMPT_KEYS, *ANSWER_KEYS), _pair),
}


def _missing(keys: Iterable[str], record: Mapping[str, Any]) -> list[str]:
    """Keys that a record could have and has not; of names for the same thing, one is enough."""
    have = set(record)
    for names in (PROMPT_KEYS, ANSWER_KEYS):
        if have & set(names):
            have |= set(names)
    return [key for key in keys if key not in have]


def _misspelt(unread: Sequence[str], missing: Sequence[str]) -> list[str]:
    faults = []
    for key in unread:
        near = difflib.get_close_matches(key.strip().lower(), missing, 1, _NEAR) if len(key) <= _LONGEST_KEY else []
        faults += [f"has the unknown key {show(key)}; did you mean {name!r}?" for name in near]
    return faults


def _one_of(record: Mapping[str, Any], names: Sequence[str], what: str, faults: list[str]) -> str:
    """The text under the first name, or under the only one of the others."""
    there = [name for name in names if name in record]
    if not there:
        keys = show(sorted(map(str, record)))
        faults.append(f"{what!r} is missing; expected one of the keys {', '.join(names)}; found {keys}")
        return ""
    if len(there) > 1 and there[0] != names[0]:
        faults.append(f"{' and '.join(map(repr, there))} could each be the {what}; rename one to {names[0]!r}")
        return ""
    return _text(repr(there[0]), record[there[0]], faults)


def _text(where: str, value: Any, faults: list[str]) -> str:
    """A text that is not blank and that a tokenizer can encode."""
    if not isinstance(value, str) or not value.strip():
        faults.append(f"{where} is {show(value)}; expected text")
        return ""
    try:
        value.encode()
    except UnicodeEncodeError as error:
        faults.append(f"{where} holds half a surrogate pair at character {error.start + 1}; no tokenizer can encode it")
        return ""
    return value


def _message(where: str, turn: Any, faults: list[str]) -> dict[str, Any]:
    """One message: `role` and `content`, or `from` and `value` as ShareGPT has them."""
    if not isinstance(turn, dict):
        faults.append(f"{where} is {show(turn)}; expected an object with role and content")
        return {"role": "", "content": ""}
    turn = {key: value for key, value in turn.items() if value is not None}
    shared = "from" in turn or "value" in turn
    if shared and ("role" in turn or "content" in turn):
        faults.append(f"{where} has keys of two forms; expected role and content, or from and value")
    if turn.get("tool_calls") or turn.get("function_call"):
        faults.append(f"{where} calls a tool, which cannot be learned")
    names = ("from", "value") if shared else ("role", "content")
    faults += [
        f"{where} {fault}" for fault in _misspelt(sorted(set(turn) - set(names)), sorted(set(names) - set(turn)))
    ]
    roles = _SHAREGPT_ROLES if shared else dict(zip(ROLES, ROLES, strict=True))
    role = turn.get(names[0])
    if not isinstance(role, str) or role not in roles:
        faults.append(f"{where} has the {names[0]} {show(role)}; expected one of {', '.join(roles)}")
        role = ""
    return {"role": roles.get(role, ""), "content": _content(f"{where}'s {names[1]}", turn.get(names[1]), faults)}


def _content(where: str, value: Any, faults: list[str]) -> Any:
    """Text, or a list of parts of which one is an image or a video."""
    content = _joined(value)
    if not isinstance(content, list) or not content or not all(isinstance(part, dict) for part in content):
        return _text(where, content, faults)
    parts = [{key: inner for key, inner in part.items() if inner is not None} for part in content]
    parts = [_renamed(part) for part in parts]
    wrong = list(content_faults(parts))
    faults += [f"{where}: {fault}" for fault in wrong]
    for part in parts:
        if not wrong and part["type"] == "text":
            _text(where, part["text"], faults)
    return parts


def _renamed(part: dict[str, Any]) -> dict[str, Any]:
    """``{"type": "image", "image": "a.jpg"}`` as ``{"type": "image", "path": "a.jpg"}``, so that it is searched."""
    kind = part.get("type")
    name = part.get(kind) if kind in ("image", "video") else None
    return {"type": kind, "path": name} if isinstance(name, str) and not name.startswith("data:") else part


def _with_media(messages: list[dict[str, Any]], media: list[dict[str, Any]], faults: list[str]) -> list[dict[str, Any]]:
    """The messages with the record's own pictures in the first message of the user."""
    first = next((i for i, message in enumerate(messages) if message["role"] == "user"), None)
    if not media or first is None or faults:
        return messages
    content = messages[first]["content"]
    if not isinstance(content, str):
        faults.append(f"has pictures both in a message and under {' or '.join(map(repr, KEYS))}; expected one place")
        return messages
    changed = {**messages[first], "content": placed(content, media, faults)}
    return [*messages[:first], changed, *messages[first + 1 :]]


def _joined(content: Any) -> Any:
    """The text of a list of text parts, as OpenAI allows; any other content as it is."""
    if not isinstance(content, list) or not all(isinstance(part, dict) for part in content):
        return content
    texts = [part.get("text") if part.get("type") == "text" else None for part in content]
    whole = [text for text in texts if isinstance(text, str)]
    return "".join(whole) if len(whole) == len(texts) else content


def _choices(choices: Any, answer: str, faults: list[str]) -> list[str]:
    if choices is None or choices == []:
        return []
    if not isinstance(choices, list):
        faults.append(f"'choices' is {show(choices)}; expected a list of texts")
        return []
    for number, choice in enumerate(choices, 1):
        _text(f"choice {number}", choice, faults)
    if faults:
        return []
    bare = [choice.strip() for choice in choices]
    if twice := sorted({choice for choice in bare if bare.count(choice) > 1}):
        faults.append(f"'choices' has {show(twice[0])} more than once; expected different choices")
    if len(choices) == 1:
        faults.append("'choices' has one choice; expected at least two")
    if answer and answer not in choices:
        faults.append(f"the answer {show(answer)} is not among the choices {show(choices)}")
    return choices


def _with_system(system: Any, messages: list[dict[str, Any]], faults: list[str]) -> list[dict[str, Any]]:
    """The messages after the text under the key `system`, if the record has one."""
    if system is None or system == "":
        return messages
    if messages and messages[0]["role"] == "system":
        faults.append("has both the key 'system' and a system message; expected one")
    return [{"role": "system", "content": _text("'system'", system, faults)}, *messages]
