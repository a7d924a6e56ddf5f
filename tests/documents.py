"""The files that docs/extending.md shows, so that tests do what the page says."""

import re
from textwrap import dedent

from workflow_project import ROOT

BLOCK = re.compile(r"^( *)`([\w./-]+)`\n\n\1```\w*\n(.*?)^\1```", re.MULTILINE | re.DOTALL)


def extending_blocks() -> dict[str, str]:
    """Return the content of each file by its name."""
    page = (ROOT / "docs" / "extending.md").read_text()
    return {name: dedent(text) for _, name, text in BLOCK.findall(page)}
