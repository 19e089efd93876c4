"""What passes a form can be used without a further look; what does not is one line."""

from __future__ import annotations

from typing import Any

import pytest

from trainables.storage import forms
from trainables.storage.forms import WrongForm, parsed

SAMPLE = forms.record(
    {"n": forms.whole(1, 9), "name": forms.text(r"[a-z]+", most=5)},
    {"on": forms.flag, "many": forms.listed(forms.maybe(forms.number)), "kind": forms.one_of("a", 1)},
)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "no JSON"),
        (b"\xff", "no JSON"),
        (b"{", "no JSON"),
        (b"\xef\xbb\xbf{}", "no JSON"),
        (b'{"a": 1, "a": 2}', "twice"),
        (b"[NaN]", "no number"),
        (b"[-Infinity]", "no number"),
        (b"[1e999]", "too large"),
        (b"[" + b"9" * 30 + b"]", "too large"),
        (b"[" + b"9" * 5000 + b"]", "no JSON"),
        (b'["\\ud800"]', "no JSON"),
        (b"[" * 60 + b"]" * 60, "nested"),
        (b"[" * 100_000 + b"]" * 100_000, "nested"),
    ],
)
def test_what_no_program_can_use_is_no_json_of_ours(content: bytes, words: str) -> None:
    with pytest.raises(WrongForm) as refused:
        parsed(content)
    assert words in str(refused.value) and "\n" not in str(refused.value) and len(str(refused.value)) < 200


@pytest.mark.parametrize(
    "value", [{"n": 1, "name": "ab"}, {"n": 9, "name": "abcde", "on": False, "many": [], "kind": 1}]
)
def test_what_has_the_form_passes(value: Any) -> None:
    SAMPLE(value, "")
    assert forms.either(forms.flag, SAMPLE)(value, "") is None


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (None, "it is None, not a list of names and values"),
        ([], "it is [], not a list of names"),
        ({}, "n is missing"),
        ({"n": 1}, "name is missing"),
        ({"n": True, "name": "a"}, "n is True, not a whole number from 1 to 9"),
        ({"n": 10, "name": "a"}, "n is 10"),
        ({"n": 1.0, "name": "a"}, "n is 1.0"),
        ({"n": 1, "name": "A"}, "name is 'A'"),
        ({"n": 1, "name": "abcdef"}, "name is 'abcdef'"),
        ({"n": 1, "name": "a\n"}, "name is 'a\\n'"),
        ({"n": 1, "name": "a", "more": 1}, "more is not written there"),
        ({"n": 1, "name": "a", "on": 1}, "on is 1, not true or false"),
        ({"n": 1, "name": "a", "many": {}}, "many is {}, not a list"),
        ({"n": 1, "name": "a", "many": [1, None, "x"]}, "many[2] is 'x', not a number"),
        ({"n": 1, "name": "a", "kind": True}, "kind is True, not a or 1"),
        ({"n": 1, "name": "x" * 1000}, "…"),
    ],
)
def test_what_has_another_form_is_said_with_its_place(value: Any, words: str) -> None:
    with pytest.raises(WrongForm) as refused:
        SAMPLE(value, "")
    assert words in str(refused.value) and "\n" not in str(refused.value) and len(str(refused.value)) < 200
