"""A job starts fast: it imports what it computes with, and nothing heavy beside it."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPTS = sorted((ROOT / "scripts").glob("*.py"))
# Seconds of every job, and nothing that any job of our own models computes with.
NEVER = ("transformers", "peft", "datasets", "sklearn", "torch._dynamo", "sympy")
WITHOUT_TORCH = ("plot", "build_corpus", "build_macondo", "record_", "collect_", "train_tokenizer")
IMPORTS = """
import sys
source = open(sys.argv[1]).read()
exec(compile(source, sys.argv[1], "exec"), {"__name__": "imported"})
print(*(name for name in sys.argv[2:] if name in sys.modules))
"""


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_a_job_imports_neither_transformers_nor_torch_in_vain(script):
    torch = ["torch"] if script.name.startswith(WITHOUT_TORCH) else []

    done = subprocess.run(
        [sys.executable, "-c", IMPORTS, str(script), *NEVER, *torch],
        env={"PYTHONPATH": str(ROOT / "scripts"), "PATH": ""},
        capture_output=True,
        text=True,
        check=True,
    )

    assert done.stdout.split() == []
