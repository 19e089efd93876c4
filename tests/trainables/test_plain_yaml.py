"""YAML means what its writer sees, or is refused in one line that says where; it never fills the memory."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

import pytest
import yaml

from trainables.plain_yaml import LARGEST, YamlError, mapping_in, value_of

TAKEN: dict[str, dict[str, Any]] = {
    "": {},
    "# nothing": {},
    "lr: 1e-3": {"lr": 0.001},
    "lr: 1.5\nepochs: 3": {"lr": 1.5, "epochs": 3},
    "pretrained: yes\namp: off": {"pretrained": True, "amp": False},
    "rungs: [0.3, 0.6]": {"rungs": [0.3, 0.6]},
    "weights: null\ndata:": {"weights": None, "data": None},
    "name: 2026-11-27": {"name": "2026-11-27"},
    "name: 0123": {"name": "0123"},
    "name: 12:30:45": {"name": "12:30:45"},
    "weights_digest: 12e3456": {"weights_digest": "12e3456"},
    "seed: 1_000": {"seed": "1_000"},
    "max_gmacs: .inf": {"max_gmacs": math.inf},
    "lr: !!float 3": {"lr": 3.0},
    "name: !!str 3": {"name": "3"},
    '{"lr": 0.1, "amp": false}': {"lr": 0.1, "amp": False},
    "name: 'a: b # c'": {"name": "a: b # c"},
}
BOMB = "a: &a [x,x,x,x,x,x,x,x]\n" + "".join(
    f"{chr(98 + n)}: &{chr(98 + n)} [{','.join([f'*{chr(97 + n)}'] * 8)}]\n" for n in range(9)
)
REFUSED: dict[str, tuple[str, str]] = {
    "float of a word": ("lr: !!float x", "x is not a number"),
    "int of a word": ("epochs: !!int 1x", "1x is not a whole number"),
    "bool of a word": ("amp: !!bool maybe", "maybe is not true or false"),
    "null of a word": ("amp: !!null x", "x is not null"),
    "timestamp": ("name: !!timestamp 2026-99-99", "the tag !!timestamp is not taken"),
    "binary": ("name: !!binary aGk=", "the tag !!binary is not taken"),
    "set": ("name: !!set {a, b}", "the tag !!set is not taken"),
    "object": ("name: !!python/object/apply:os.system [true]", "python/object/apply:os.system is not taken"),
    "own tag": ("name: !secret x", "the tag !secret is not taken"),
    "bomb": (BOMB, "anchors and aliases are not taken"),
    "recursion": ("a: &a [*a]", "anchors and aliases are not taken"),
    "merge": ("a: &a {lr: 1}\n<<: *a", "anchors and aliases are not taken"),
    "deep": ("a: " + "[" * 5000, "lists in lists"),
    "list as key": ("? [a, b]\n: 1", "a key is one word"),
    "twice": ("lr: 1\nlr: 2", "the key lr is there twice"),
    "zero byte": ("name: 'a\0b'", "special characters are not allowed"),
    "escaped zero": ('name: "a\\0b"', "is no text"),
    "escape sequence": ("name: \x1b[2J", "special characters are not allowed"),
    "two documents": ("lr: 1\n---\nlr: 2", "but found another document"),
    "a list": ("- 1\n- 2", "it holds no key: value pairs"),
    "a word": ("hello", "it holds no key: value pairs"),
    "open quote": ("name: 'x", "found unexpected end of stream"),
    "tab": ("lr:\t\t- 1\n\tx", "line"),
    "directive": ("%YAML 9.9\n---\nlr: 1", "incompatible YAML document"),
}


@pytest.mark.parametrize("text", TAKEN)
def test_plain_values_are_taken_exactly(text: str, tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(text, encoding="utf-8")
    found = mapping_in(tmp_path / "a.yaml")
    assert found == TAKEN[text] and [type(v) for v in found.values()] == [type(v) for v in TAKEN[text].values()]


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_left_out_is_refused_in_one_line(case: str, tmp_path: Path) -> None:
    text, says = REFUSED[case]
    (tmp_path / "a.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(YamlError) as caught:
        mapping_in(tmp_path / "a.yaml")
    line = str(caught.value)
    assert says in line and line.isprintable() and len(line) < 300


def test_only_a_regular_file_of_bounded_size_is_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.yaml")
    (tmp_path / "large.yaml").write_text("#" * (LARGEST + 1))
    (tmp_path / "self.yaml").symlink_to(tmp_path / "self.yaml")
    for path in (tmp_path / "pipe.yaml", tmp_path / "large.yaml", tmp_path / "self.yaml", tmp_path, Path("/dev/zero")):
        with pytest.raises(OSError, match=r"regular|larger|symbolic|directory") as caught:
            mapping_in(path)
        assert caught.value.strerror
    (tmp_path / "latin.yaml").write_bytes(b"name: \xe9")
    with pytest.raises(YamlError, match="no text in UTF-8"):
        mapping_in(tmp_path / "latin.yaml")


def test_a_word_is_its_text_where_it_is_no_plain_value() -> None:
    taken = {"a#b": "a#b", "/p/a: b": "/p/a: b", "1": 1, " 0.5 ": 0.5, "a\nb": "a\nb", "on": True, "": None, "*x": "*x"}
    assert {word: value_of(word) for word in taken} == taken
    assert value_of("[1, a]") == [1, "a"] and value_of("'1'") == "1"
    for word in ("[1", "'a", "!!float x", "{a: }}"):
        with pytest.raises(YamlError, match=r"^[ -~]+$"):
            value_of(word)


def test_what_this_program_writes_reads_back(tmp_path: Path) -> None:
    written = {
        "lr": 0.001,
        "name": "yes",
        "a": "1.5.2",
        "b": None,
        "c": [1, 2.5, "x"],
        "d": "12:30",
        "e": True,
        "f": "é\n",
    }
    (tmp_path / "a.yaml").write_text(yaml.safe_dump(written, allow_unicode=True), encoding="utf-8")
    assert mapping_in(tmp_path / "a.yaml") == written
