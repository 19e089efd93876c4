"""YAML of settings and knobs: flat, one value for each key, read exactly or refused in one line.

In: a file of `key: value`, or the text of one value. Out: texts, whole and other numbers, true and false, nothing,
lists of these.

A small part of YAML 1.1, so that no file means what its writer does not see: a number is decimal, what looks like a
date or a time is a text, as is a number with leading zeros; each key stands once; no tags but those of the values
above, no anchors, no merges. Whatever is left out is refused, and so is a file that could fill the memory.
"""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any, ClassVar

import yaml

from trainables.storage.files import regular_bytes
from trainables.terminal import is_text
from trainables.text import shown

LARGEST = 1 << 17
DEEPEST = 8
_WHOLE = re.compile(r"[-+]?(0|[1-9][0-9]{0,300})")
_NUMBER = re.compile(
    r"[-+]?((0|[1-9][0-9]*)(\.[0-9]*)?|\.[0-9]+)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)"
)
_BOOL = re.compile(r"(?i:true|false|yes|no|on|off)")
_NULL = re.compile(r"~|null|Null|NULL|")
_PLAIN = (_BOOL, _WHOLE, _NUMBER, _NULL)
_TAG = "tag:yaml.org,2002:"


class YamlError(ValueError):
    """Not the YAML that is read here; says what and where in one line."""


def mapping_in(path: Path) -> dict[str, Any]:
    """The `key: value` pairs of a file; {} where it holds nothing.

    Raises:
        YamlError: it holds something else. OSError: it can't be read, or is no regular file.
    """
    found = _document(path)
    if found is None:
        return {}
    if not isinstance(found, dict):
        raise YamlError("it holds no key: value pairs")
    return found


def list_in(path: Path) -> list[Any]:
    """The list that a file holds.

    Raises:
        YamlError: it holds something else. OSError: it can't be read, or is no regular file.
    """
    found = _document(path)
    if not isinstance(found, list):
        raise YamlError("it holds no list: each entry begins with - ")
    return found


def _document(path: Path) -> Any:
    content = regular_bytes(path, LARGEST)
    try:
        return _loaded(content.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise YamlError(f"it is no text in UTF-8: {error.reason} at byte {error.start}") from None


def value_of(text: str) -> Any:
    """The value of a `key=value` word: YAML where it is quoted or a list, a number or another plain value, else `text`.

    So a path with a # or a line break in it is that path.

    Raises:
        YamlError: it begins as a list or a quoted text, and is none.
    """
    word = text.strip()
    if word.startswith(("[", "{", '"', "'", "!")) or any(
        kind.fullmatch(word) for kind in (_WHOLE, _NUMBER, _BOOL, _NULL)
    ):
        return _loaded(text)
    return text


class _Reader(yaml.SafeLoader):
    """SafeLoader without what the module's docstring leaves out."""

    yaml_implicit_resolvers: ClassVar[dict[str, Any]] = {}  # type: ignore[misc]
    yaml_constructors: ClassVar[dict[Any, Any]] = {}
    depth = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        event = self.peek_event()
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            raise _wrong("anchors and aliases are not taken: write the value out", event)
        self.depth += 1
        if self.depth > DEEPEST:
            raise _wrong("lists in lists in lists: all settings are in one flat list", event)
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node

    def pairs(self, node: Any) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise _wrong("a key is one word", key)
            if key.value in found:
                raise _wrong(f"the key {shown(key.value)} is there twice", key)
            found[key.value] = self.construct_object(value, deep=True)
        return found

    def items(self, node: Any) -> list[Any]:
        return [self.construct_object(one, deep=True) for one in node.value]

    def text(self, node: Any) -> str:
        if not is_text(node.value) or "\0" in node.value:
            raise _wrong(f"{shown(node.value)} is no text", node)
        return str(node.value)

    def whole(self, node: Any) -> int:
        return int(_matched(_WHOLE, node, "a whole number"))

    def number(self, node: Any) -> float | str:
        text = _matched(_NUMBER, node, "a number")
        number = float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))
        return text if math.isinf(number) and "inf" not in text.lower() else number  # 12e3456, a digest say

    def truth(self, node: Any) -> bool:
        return _matched(_BOOL, node, "true or false").lower() in ("true", "yes", "on")

    def nothing(self, node: Any) -> None:
        _matched(_NULL, node, "null")

    def unknown(self, node: Any) -> Any:
        raise _wrong(f"the tag {shown(node.tag.replace(_TAG, '!!'))} is not taken: leave it out", node)


def _matched(pattern: re.Pattern[str], node: Any, what: str) -> str:
    if not isinstance(node, yaml.ScalarNode) or not pattern.fullmatch(node.value):
        raise _wrong(f"{shown(node.value) if isinstance(node, yaml.ScalarNode) else 'a list'} is not {what}", node)
    return str(node.value)


_RESOLVED: tuple[tuple[str, re.Pattern[str], Any, Any], ...] = (
    ("bool", _BOOL, "yYnNtTfFoO", _Reader.truth),
    ("int", _WHOLE, "-+0123456789", _Reader.whole),
    ("float", _NUMBER, "-+0123456789.", _Reader.number),
    ("null", _NULL, ["~", "n", "N", ""], _Reader.nothing),
)
_OTHERS: tuple[tuple[str, Any], ...] = (("str", _Reader.text), ("seq", _Reader.items), ("map", _Reader.pairs))
for _name, _pattern, _begin, _construct in _RESOLVED:
    _Reader.add_implicit_resolver(_TAG + _name, re.compile(rf"^(?:{_pattern.pattern})$"), list(_begin))
    _Reader.add_constructor(_TAG + _name, _construct)
for _name, _construct in _OTHERS:
    _Reader.add_constructor(_TAG + _name, _construct)
_Reader.add_constructor(None, _Reader.unknown)


def _wrong(what: str, where: Any) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(problem=what, problem_mark=where.start_mark)


def _loaded(text: str) -> Any:
    """The one document in `text`."""
    if not is_text(text):
        raise YamlError("it holds bytes that are no text in UTF-8")
    try:
        return yaml.load(text, _Reader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        raise YamlError(f"{where}{shown(error.problem or error.context)}") from None
    except (yaml.YAMLError, RecursionError) as error:
        raise YamlError(shown(str(error).partition("\n")[0])) from None
