"""A name by which one file of a model asks for another: it may only mean a file beneath the model's own folder."""

from __future__ import annotations

import re

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")  # a URL's scheme, and a Windows drive
MAX_NAME = 4096


def why_not(name: str) -> str:
    """What is wrong with the name, as the end of a sentence; empty where it lies beneath the folder on any system.

    Whether such a file is a link is for whoever sees the folder to find out.
    """
    if not name or len(name) > MAX_NAME:
        return "is empty or longer than any path"
    if name.startswith(("/", "~")):
        return "is absolute"
    if "\\" in name:
        return "holds a backslash, which separates folders on Windows"
    if _SCHEME.match(name):
        return "begins with a drive or a URL's scheme"
    if any(part in ("..", "...") for part in name.split("/")):
        return "leaves the folder"
    if any(character < " " or character in "*?<>|\x7f" for character in name):
        return "holds characters that no file's name needs"
    return ""
