"""Every Snakemake command that the documents show is one that Snakemake takes."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from workflow_project import ROOT

DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
FENCED = re.compile(r"^```\w*\n(.*?)^```", re.MULTILINE | re.DOTALL)
COMMAND = re.compile(r"^(?:\$ )?(snakemake .*)$", re.MULTILINE)
INLINE = re.compile(r"`(snakemake --[^`]+)`")
OVERLAY = re.compile(r"\S+\.yaml\b")
LEFT_OUT = ("...", "frequent_values")  # shortened; of the example that test_extending.py follows


def commands() -> list[str]:
    """Return the commands in code blocks and in sentences, each once."""
    found = {}
    for document in DOCUMENTS:
        text = document.read_text()
        blocks = "\n".join(FENCED.findall(text)).replace("\\\n", " ")
        found |= dict.fromkeys([*COMMAND.findall(blocks), *INLINE.findall(FENCED.sub("", text))])
    return [command for command in found if not any(part in command for part in LEFT_OUT)]


@pytest.mark.parametrize("command", commands())
def test_a_documented_command_is_accepted(command, project):
    for name in OVERLAY.findall(command):  # the project's, or a user's own
        path = project.folder / name
        path.parent.mkdir(exist_ok=True)
        own = "run: mine\n"
        path.write_text((ROOT / name).read_text() if (ROOT / name).exists() else own)
    environment = project.environment | {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "SNAKEMAKE_OUTPUT_CACHE": str(project.folder),
    }
    dry = command.replace("snakemake", "snakemake --dry-run --nolock", 1)

    done = subprocess.run(
        ["bash", "-c", dry], cwd=project.folder, env=environment, text=True, capture_output=True
    )

    assert done.returncode == 0, done.stdout[-1500:] + done.stderr[-1500:]
