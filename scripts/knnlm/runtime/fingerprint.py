"""Fingerprints: a rule reruns when its meaning changes, and only then.

Snakemake sees neither the modules that a script imports nor swapped parameters, and compares
scripts by date. A fingerprint is one string that changes with the settings a rule uses and with
the code it runs, but not with comments, docstrings or file dates. Standard library only: the
Snakefile imports this module, in every job.
"""

import ast
import hashlib
import json
from functools import cache
from pathlib import Path
from typing import Any

LIBRARY = "knnlm"


def fingerprint(root: Path, script: str, settings: Any) -> str:
    """Return the SHA-256 of a script, of every library module that it imports, and of settings.

    Args:
        root: the folder of the Snakefile.
        script: the script, relative to `root`.
        settings: what the rule takes from the config (and its wildcards): JSON values.

    Raises:
        FileNotFoundError: if the script does not exist.
        SyntaxError: naming file and line, if a module cannot be parsed.
    """
    digest = hashlib.sha256()
    digest.update(json.dumps(settings, sort_keys=True, separators=(",", ":")).encode())
    for path in import_closure(root / script, root / Path(script).parent):
        digest.update(str(path.relative_to(root)).encode())
        digest.update(_meaning(path, path.stat().st_mtime_ns).encode())
    return digest.hexdigest()


def import_closure(script: Path, source: Path) -> list[Path]:
    """Return a script, the library modules that it imports, directly or not, and their data.

    Args:
        script: the file to start from.
        source: the folder that holds the library's package.

    Returns:
        Sorted paths. A data file that lies beside a module and starts with its name
        (gazetteer.py, gazetteer_language.yaml) belongs to it.
    """
    found: set[Path] = set()
    waiting = [script]
    while waiting:
        path = waiting.pop()
        if path in found:
            continue
        found.add(path)
        if path.suffix != ".py":
            continue
        if path != script:
            waiting += [p for p in path.parent.glob(f"{path.stem}_*") if p.suffix != ".py"]
        for module in _imports(path, path.stat().st_mtime_ns):
            waiting += _module_files(module, source)
    return sorted(found)


def _module_files(module: str, source: Path) -> list[Path]:
    parts = module.split(".")
    packages = [source.joinpath(*parts[:n], "__init__.py") for n in range(1, len(parts) + 1)]
    return [p for p in [*packages, source.joinpath(*parts).with_suffix(".py")] if p.is_file()]


@cache
def _imports(path: Path, modified: int) -> list[str]:
    """Return the library modules that a file names in its imports, also inside functions."""
    names: list[str] = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"), filename=str(path))):
        if isinstance(node, ast.ImportFrom) and node.module:
            names += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        elif isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
    return sorted({name for name in names if name.split(".")[0] == LIBRARY})


@cache
def _meaning(path: Path, modified: int) -> str:
    """Return the syntax tree of a Python file without docstrings, or the hash of a data file."""
    if path.suffix != ".py":
        return hashlib.sha256(path.read_bytes()).hexdigest()
    tree = ast.parse(path.read_text(encoding="utf-8"), filename=str(path))
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    for node in ast.walk(tree):
        if isinstance(node, documented) and ast.get_docstring(node) is not None:
            node.body = node.body[1:]
    return ast.dump(tree)
