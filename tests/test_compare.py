"""docs/compare.md: each cell of ours has a test that is there, or a command."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from tune_rsst.cli.app import app

ROOT = Path(__file__).resolve().parents[1]
ROWS = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in (ROOT / "docs/compare.md").read_text(encoding="utf-8").splitlines()
    if line.startswith("|") and not line.startswith(("|---", "| |"))
]


def commands() -> set[str]:
    groups = [app, *(group.typer_instance for group in app.registered_groups)]
    found = [one for group in groups if group for one in group.registered_commands]
    return {one.name or one.callback.__name__ for one in found if one.callback}


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0])
def test_a_cell_of_ours_has_a_test_or_a_command_behind_it(row: list[str]) -> None:
    assert len(row) == 7 and all(row), "seven cells"
    ours, named = row[-1], re.findall(r"`([^`]+)`", row[-1])
    assert named or ours.startswith("–"), "nothing stands behind it"
    for name in named:
        if name.startswith("tune-rsst "):
            assert name.split()[1] in commands(), name
            continue
        path, _, test = name.partition("::")
        tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
        assert test in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}, name


def test_every_tool_has_a_word_in_every_row() -> None:
    marks = [cell[0] for row in ROWS for cell in row[1:]]
    assert len(ROWS) > 20 and set(marks) == set("✓~–·")
