"""Fingerprints: a rule reruns when its meaning changes, and only then.

Snakemake sees neither the modules that a script imports nor swapped parameters, and compares
scripts by date. A fingerprint is one string that changes with the settings a rule uses and with
the code it runs, but not with comments, docstrings or file dates. Standard library only: the
Snakefile imports this module, in every job.
"""

import ast
import hashlib
import json
import re
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

LIBRARY = "knnlm"
DATA = re.compile(r"(?<![\w/])[\w/]++\.(?:yaml|txt|html|css|js)\b")  # names of data files


def fingerprint(code: str, settings: Any) -> str:
    """Return the SHA-256 of what `code_of` says of a script, and of the settings of a job.

    Args:
        code: of the script; jobs of one rule share it.
        settings: what the rule takes from the config (and its wildcards): JSON values.
    """
    described = json.dumps(settings, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(f"{described}{code}".encode()).hexdigest()


def code_of(root: Path, script: str, *modules: str) -> str:
    """Return the SHA-256 of a script, of every library module that it imports, and of their data.

    Args:
        root: the folder of the Snakefile.
        script: the script, relative to `root`.
        modules: library modules that the script imports by a name it is given.

    Raises:
        FileNotFoundError: if the script does not exist.
        SyntaxError: naming file and line, if a module cannot be parsed.
    """
    digest = hashlib.sha256()
    source = root / Path(script).parent
    named = [source.joinpath(*module.split(".")).with_suffix(".py") for module in modules]
    for path in import_closure([root / script, *named], source):
        digest.update(str(path.relative_to(root)).encode())
        digest.update(_read(path, path.stat().st_mtime_ns).meaning)
    return digest.hexdigest()


def import_closure(starts: Iterable[Path], source: Path) -> list[Path]:
    """Return some files, the library modules that they import, directly or not, and their data.

    Args:
        starts: the files to start from.
        source: the folder that holds the library's package.

    Returns:
        Sorted paths. A data file belongs to a module, or to a template, that names it in a string
        (`with_name("language.yaml")`) and lies in its folder or in the one above it.
    """
    found: set[Path] = set()
    waiting = [*starts]
    while waiting:
        path = waiting.pop()
        if path not in found:
            found.add(path)
            waiting += _used_by(path, source, path.stat().st_mtime_ns)
    return sorted(found)


class _Source(NamedTuple):
    """A file: the library modules that it imports, the data that it names, and what it does."""

    imports: tuple[str, ...]
    data: tuple[str, ...]
    meaning: bytes


@cache
def _used_by(path: Path, source: Path, modified: int) -> list[Path]:
    """Return the files that a file uses itself: imported modules and named data."""
    read = _read(path, modified)
    places = [] if path.parent == source else [path.parent, path.parent.parent]
    data = [place / name for name in read.data for place in places if (place / name).is_file()]
    return data + [file for name in read.imports for file in _files(name, source)]


@cache
def _files(module: str, source: Path) -> list[Path]:
    parts = module.split(".")
    packages = [source.joinpath(*parts[:n], "__init__.py") for n in range(1, len(parts) + 1)]
    return [p for p in [*packages, source.joinpath(*parts).with_suffix(".py")] if p.is_file()]


@cache
def _read(path: Path, modified: int) -> _Source:
    """Return imports, also those inside functions, and the syntax tree without docstrings.

    What a data file means is the hash of its bytes. Jobs share most modules, and a tree takes
    milliseconds: each file is parsed once.
    """
    if path.suffix != ".py":
        content = path.read_bytes()
        named = DATA.findall(content.decode("utf-8", "replace"))
        return _Source((), tuple(named), hashlib.sha256(content).hexdigest().encode())
    tree = ast.parse(path.read_text(encoding="utf-8"), filename=str(path))
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    imported: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, documented) and ast.get_docstring(node) is not None:
            node.body = node.body[1:]
        elif isinstance(node, ast.ImportFrom) and node.module:
            imported |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.Import):
            imported |= {alias.name for alias in node.names}
    library = sorted(name for name in imported if name.split(".")[0] == LIBRARY)
    meaning = ast.dump(tree)
    return _Source(tuple(library), tuple(sorted({*DATA.findall(meaning)})), meaning.encode())
