"""Addresses without their passwords."""

from __future__ import annotations

import re


def hide_password(text: str) -> str:
    """scheme://user:password@host → scheme://user:***@host; also a token in the user's place, and ?password=…

    A password may hold any character but blanks: the last @ before a blank or a quote ends it.
    """
    text = re.sub(r"(\w[\w+.-]*://)([^:/@\s]*):\S*@", r"\1\2:***@", text)
    text = re.sub(r"(https?://)[^:/@\s]+@", r"\1***@", text)
    return re.sub(r"([?&](?:\w*password|\w*token|\w*secret)=)[^&\s]+", r"\1***", text, flags=re.IGNORECASE)
