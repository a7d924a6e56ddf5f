"""The conventions of the house, so that a reader finds everything where it belongs."""

import ast
import re
from pathlib import Path

import pytest
import yaml

from knnlm.plan.resources import MODELS as NEEDS_OF_RULES
from knnlm.runtime.fingerprint import import_closure

ROOT = Path(__file__).parents[1]
LIBRARY = ROOT / "scripts" / "knnlm"
WINGS = ["runtime", "plan", "text", "lm", "retrieval", "evidence", "experiments"]
SCRIPTS = sorted((ROOT / "scripts").glob("*.py"))
MODULES = sorted(LIBRARY.rglob("*.py"))
EXPERIMENTS = sorted(p.stem for p in (ROOT / "workflow" / "experiments").glob("*.smk"))
RULE_FILES = sorted((ROOT / "workflow").rglob("*.smk"))
LOGIC = (
    ast.FunctionDef,
    ast.AsyncFunctionDef,
    ast.ClassDef,
    ast.Lambda,
    ast.For,
    ast.While,
    ast.comprehension,
    ast.BinOp,
    ast.Try,
)


def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def imports_of(path: Path) -> list[str]:
    names = []
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.ImportFrom):
            names.append("." * node.level + (node.module or ""))
        elif isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
    return names


def identifier(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("script", SCRIPTS, ids=identifier)
def test_a_script_only_unpacks_calls_and_saves(script):
    logic = [type(node).__name__ for node in ast.walk(tree_of(script)) if isinstance(node, LOGIC)]

    assert not logic
    assert len(script.read_text().splitlines()) <= 40
    assert "snakemake.config" not in script.read_text()


@pytest.mark.parametrize("script", SCRIPTS, ids=identifier)
def test_a_script_serves_a_rule(script):
    rules = "".join(path.read_text() for path in RULE_FILES)

    assert f'script:\n        "../../scripts/{script.name}"' in rules
    assert f'"scripts/{script.name}"' in rules, "its rule has no fingerprint"


@pytest.mark.parametrize("module", MODULES, ids=identifier)
def test_the_library_knows_nothing_of_snakemake(module):
    assert not [name for name in imports_of(module) if name.split(".")[0] == "snakemake"]


@pytest.mark.parametrize("module", MODULES, ids=identifier)
def test_a_wing_imports_only_wings_before_it(module):
    wing = module.relative_to(LIBRARY).parts[0]
    allowed = WINGS[: WINGS.index(wing) + 1] if wing in WINGS else []

    for name in imports_of(module):
        assert not name.startswith("."), f"write {name} as an absolute import"
        if name.split(".")[0] == "knnlm":
            assert name.split(".")[1] in allowed


@pytest.mark.parametrize("module", sorted((LIBRARY / "evidence").glob("*.py")), ids=identifier)
def test_evidence_needs_no_torch(module):
    closure = import_closure([module], ROOT / "scripts")
    imported = {n.split(".")[0] for p in closure if p.suffix == ".py" for n in imports_of(p)}

    assert not imported & {"torch", "transformers", "accelerate"}


@pytest.mark.parametrize("module", MODULES, ids=identifier)
def test_a_module_is_short_and_documented(module):
    tree = tree_of(module)
    functions = [n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef)]
    long = [f.name for f in functions if body_lines(f) > 40]
    public = [n for n in tree.body if isinstance(n, ast.FunctionDef | ast.ClassDef)]
    bare = [n.name for n in public if n.name[0] != "_" and not ast.get_docstring(n)]

    assert len(module.read_text(encoding="utf-8").splitlines()) <= 300
    assert not long
    assert not bare
    assert ast.get_docstring(tree)


def body_lines(function: ast.FunctionDef) -> int:
    """Count the lines of a function below its docstring."""
    body = function.body[1:] if ast.get_docstring(function) else function.body
    return body[-1].end_lineno - body[0].lineno + 1 if body else 0


@pytest.mark.parametrize("rules", [ROOT / "Snakefile", *RULE_FILES], ids=identifier)
def test_a_rule_file_is_short(rules):
    limit = 60 if rules.name == "Snakefile" else 150

    assert len(rules.read_text().splitlines()) <= limit


@pytest.mark.parametrize("rules", RULE_FILES, ids=identifier)
def test_a_rule_asks_for_what_the_plan_says(rules):
    blocks = re.split(r"(?m)^(?=(?:use )?rule )", rules.read_text())
    submitted = [b for b in blocks if b.startswith("rule ") and "script:" in b]
    bare = [b.split(":")[0] for b in submitted if "**NEEDS" not in b]
    long = {re.match(r"rule (\w+)", b)[1] for b in submitted if "benchmark:" in b}

    if rules.stem not in ("plan", "hosted", "integrity"):  # which are never submitted
        assert not bare, "resources: **NEEDS"
    assert not long - set(NEEDS_OF_RULES), "a rule of over a minute needs a model: runtime/plan_*"


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_an_experiment_has_every_part(experiment):
    schema = yaml.safe_load((ROOT / "workflow/schemas/config.schema.yaml").read_text())
    config = yaml.safe_load((ROOT / "config.yaml").read_text())
    listed = schema["properties"]["experiments"]["items"]["enum"]
    tests = (ROOT / "tests" / "unit").glob(f"test_{experiment}*.py")
    there = {
        f"scripts/knnlm/experiments/{experiment}.py": None,
        f"workflow/report/{experiment}.rst": None,
        f"tests/unit/test_{experiment}*.py": any(tests),
        f"block {experiment} of config.yaml": experiment in config,
        f"{experiment} in experiments of config.yaml": experiment in config["experiments"],
        f"property {experiment} of the schema": experiment in schema["properties"],
        f"{experiment} in experiments of the schema": experiment in listed,
        "row of README.md": f"{experiment}.smk" in (ROOT / "README.md").read_text(),
        "include in Snakefile": f"{experiment}.smk" in (ROOT / "Snakefile").read_text(),
    }

    missing = [part for part, yes in there.items() if not (yes or (ROOT / part).is_file())]

    assert missing == []


def test_every_setting_has_a_meaning():
    schema = yaml.safe_load((ROOT / "workflow/schemas/config.schema.yaml").read_text())
    bare = []

    def walk(node, path):
        for name, child in node.get("properties", {}).items():
            if (
                child
                and "description" not in child
                and not child.get("$ref", "").endswith("documents")
            ):
                bare.append(f"{path}.{name}")
            walk(child, f"{path}.{name}")

    walk(schema, "config")
    for name, definition in schema["$defs"].items():
        walk(definition, name)

    assert not bare


def test_the_tree_holds_no_room_without_a_name():
    names = {path.stem for path in (*MODULES, *SCRIPTS)}

    assert not names & {"utils", "helpers", "common", "misc", "tools"}
    assert not re.search(r"\bTODO\b|\bFIXME\b", "".join(p.read_text() for p in MODULES))
