"""Addresses without their passwords; which environment variables are secrets."""

from __future__ import annotations

import re


def hide_password(text: str) -> str:
    """scheme://user:password@host → scheme://user:***@host; also a token in the user's place, and ?password=…

    A password may hold any character but blanks: the last @ before a blank or a quote ends it.
    """
    text = re.sub(r"(\w[\w+.-]*://)([^:/@\s]*):\S*@", r"\1\2:***@", text)
    text = re.sub(r"(https?://)[^:/@\s]+@", r"\1***@", text)
    return re.sub(r"([?&](?:\w*password|\w*token|\w*secret|sig)=)[^&\s]+", r"\1***", text, flags=re.IGNORECASE)


_SECRET = re.compile(
    r"secret|token|passw|credential|api_?key|access_?key|private_?key|authorization|^(AWS|AZURE|GOOGLE)_|_PAT$|_DSN$",
    re.I,
)
RAYS_OWN = "RAY_"  # its token among them: its processes know each other by it


def is_secret(name: str, value: str) -> bool:
    """Whether an environment variable holds what only those who need it should get, by its name or its value."""
    return not name.startswith(RAYS_OWN) and (bool(_SECRET.search(name)) or hide_password(value) != value)
