"""README.md taken apart: its sections, commands, files and tables.

A block that is indented by four spaces is a file when the paragraph before it
ends with a name in backticks and a colon, as in "`nginx.conf`:", perhaps with
words around it: "`pyproject.toml` of uv:".  Every line of the other blocks is
a command.
"""

import os
import re
from typing import NamedTuple, Tuple

from tests.helpers import SCRIPT

TOP = os.path.dirname(SCRIPT)
README = os.path.join(TOP, "README.md")
TITLE = re.compile("`([^`\n]+)`((?: [^`\n]+)?):$")


class Section(NamedTuple):
    """What stands below one heading, up to the next one of any level."""

    title: str
    commands: Tuple[str, ...]
    files: Tuple[Tuple[str, str], ...]      # (title, text)
    rows: Tuple[Tuple[str, ...], ...]       # of its tables, without heads


def read():
    with open(README, encoding="utf-8") as file:
        return file.read()


def sections():
    """Return all sections by their titles, in order."""
    found = {}
    parts = re.split(r"(?m)^#+ (.*)\n", read())[1:]
    for title, text in zip(parts[::2], parts[1::2]):
        if title in found:
            raise AssertionError("two sections %r" % title)
        found[title] = parse(title, text)
    return found


def parse(title, text):
    commands, files = [], []
    for before, block in re.findall(
            r"(?m)^(.*)\n\n((?:    .*\n|\n(?=    ))+)", "\n" + text):
        block = re.sub("(?m)^    ", "", block)
        name = TITLE.search(before)
        if name:
            files.append((name.group(1) + name.group(2), block))
        else:
            commands += block.splitlines()
    rows = [tuple(cell.strip().replace("\\|", "|")
                  for cell in re.split(r"(?<!\\)\|", line)[1:-1])
            for table in re.findall(r"(?m)^\|-.*\n((?:\|.*\n)+)", text)
            for line in table.splitlines()]
    return Section(title, tuple(commands), tuple(files), tuple(rows))


def commands(title):
    """Return the commands of a section."""
    return sections()[title].commands


def recipe(name):
    """Return the text of a file that the guide shows."""
    found = [text for section in sections().values()
             for title, text in section.files if title == name]
    if len(found) != 1:
        raise AssertionError("%d files %r in the guide" % (len(found), name))
    return found[0]
