"""Fenced code blocks of the documentation's pages."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BLOCK = re.compile(r"^```(\w+)(?: title=\"([^\"]+)\")?\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(page: str, language: str) -> list[tuple[str, str]]:
    """Title and text of each block of a language; the title is empty where there is none."""
    found = BLOCK.findall((ROOT / page).read_text(encoding="utf-8"))
    return [(title, text) for kind, title, text in found if kind == language]
