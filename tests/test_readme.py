"""The Chinese README has the commands of the English one, and the guide's commands as docs/models.md has them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

BLOCK = re.compile(r"^```\w*\n(.*?)^```$", re.S | re.M)


def commands(document: Path) -> list[str]:
    """Code blocks that hold commands: the tree of folders and the outputs are none."""
    starts = ("make ", ".venv/bin/", "#")
    return [block for block in BLOCK.findall(document.read_text(encoding="utf-8")) if block.startswith(starts)]


def test_every_command_of_the_readme_is_in_the_chinese_one(repo_root: Path) -> None:
    english = commands(repo_root / "README.md")
    assert english
    assert [block for block in english if block not in commands(repo_root / "README.zh-CN.md")] == []


def test_the_guides_blocks_are_those_of_the_models_document(repo_root: Path) -> None:
    guide = [block for block in commands(repo_root / "docs" / "models.md") if "示例1" in block]
    assert len(guide) == 1 and guide[0] in commands(repo_root / "README.zh-CN.md")


@pytest.mark.parametrize("row", ["pip install timm", "main_imp_fillback.py", "PRETRAINED=true", "PRETRAINED=false",
                                 "test_vit_model.py", "load_pretrained_weights", "示例2"])  # fmt: skip
def test_every_command_of_the_guide_has_a_row(repo_root: Path, row: str) -> None:
    rows = [
        line for line in (repo_root / "README.zh-CN.md").read_text(encoding="utf-8").splitlines() if line[:1] == "|"
    ]
    assert any(row in line.split("|")[1] for line in rows)
