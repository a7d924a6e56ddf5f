"""The conventions of the house, so that a reader finds everything where it belongs."""

import ast
import re
import shutil
from pathlib import Path

import pytest
import yaml

from knnlm.runtime.experiments import read_experiments
from knnlm.runtime.fingerprint import import_closure
from knnlm.runtime.settings import SettingsError

ROOT = Path(__file__).parents[1]
LIBRARY = ROOT / "scripts" / "knnlm"
WINGS = ["runtime", "text", "lm", "plan", "retrieval", "evidence", "experiments"]
SCRIPTS = sorted((ROOT / "scripts").glob("*.py"))
MODULES = sorted(LIBRARY.rglob("*.py"))
EXPERIMENTS = read_experiments(ROOT)
RULE_FILES = sorted((ROOT / "workflow").rglob("*.smk"))
EXPERIMENT_MODULE = re.compile(r"knnlm\.experiments\.\w+\.")
MOST_PARAMETERS = 8
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

    assert re.search(rf'script:\n +"(../)+scripts/{script.name}"', rules)
    if script.name != "evaluate.py":  # its rules take their fingerprint from `evaluation`
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


@pytest.mark.parametrize("module", MODULES, ids=identifier)
def test_an_experiment_imports_no_other(module):
    room = module.relative_to(LIBRARY).parts
    if room[0] != "experiments" or len(room) < 3:
        return
    imported = {name.split(".")[2] for name in imports_of(module) if EXPERIMENT_MODULE.match(name)}

    assert imported <= ({"shared"} if room[1] == "shared" else {"shared", room[1]})


@pytest.mark.parametrize("figure", sorted(LIBRARY.glob("experiments/*/figure.py")), ids=identifier)
def test_a_figure_needs_its_tables_alone(figure):
    """No torch, and nothing of the method: a look may change without a number."""
    closure = import_closure([figure], ROOT / "scripts")
    wings = {path.relative_to(LIBRARY).parts[0] for path in closure if path.is_relative_to(LIBRARY)}

    assert not wings & {"lm", "retrieval"}


LIGHT = sorted([*(LIBRARY / "evidence").glob("*.py"), *(LIBRARY / "plan").glob("*.py")])


@pytest.mark.parametrize("module", LIGHT, ids=identifier)
def test_evidence_and_plan_need_no_torch(module):
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
    assert not [f.name for f in functions if parameters(f) > MOST_PARAMETERS]
    assert ast.get_docstring(tree)


def parameters(function: ast.FunctionDef) -> int:
    """Count the parameters of a function; `self` and `cls` are none."""
    arguments = function.args
    names = [a.arg for a in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)]
    return len([name for name in names if name not in ("self", "cls")])


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

    if rules.stem not in ("plan", "integrity") and "hosted" not in str(rules):  # never submitted
        assert not bare, "resources: **NEEDS"


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_an_experiment_has_a_test_and_a_question(name):
    rules = (EXPERIMENTS[name].folder / "rules.smk").read_text()

    assert list((ROOT / "tests/unit/experiments" / name).glob("test_*.py"))
    assert re.search(rf'rule {name}:\n    """[A-Z].+\?', rules)
    assert f"rule evaluate_{name}:" in rules


def test_shared_files_name_no_experiment():
    """A new experiment edits nothing: shared code finds the folders by a loop."""
    shared = [ROOT / "Snakefile", *(ROOT / "workflow/rules").glob("*.smk")]
    shared += [ROOT / "workflow/schemas/config.schema.yaml", *(ROOT / "profiles").rglob("*.yaml")]
    named = {
        (path.name, name)
        for path in shared
        for name in EXPERIMENTS
        if re.search(rf"\b(evaluate_|plot_)?{name}\b", path.read_text())
    }

    # The explorer shows the neighbors that the first one evaluates: it is built in the same runs.
    # The other's name is that of a setting too.
    assert {name for _, name in named} <= {"knn_perplexity", "temperature"}


def test_a_trivial_experiment_is_small():
    """What Khandelwal's Table 5 took: at most 7 files and 120 lines."""
    name = "key_function"
    places = ("workflow/experiments", "scripts/knnlm/experiments", "tests/unit/experiments")
    files = [p for place in places for p in (ROOT / place / name).iterdir() if p.is_file()]
    lines = [line for path in files for line in path.read_text().splitlines()]

    assert len(files) <= 7
    assert len(lines) <= 120


@pytest.mark.parametrize(
    "part", ["rules.smk", "settings.yaml", "caption.rst", "table.py", "figure.py"]
)
def test_an_experiment_without_one_of_its_parts_is_named(part, tmp_path):
    for place in ("workflow/experiments", "scripts/knnlm/experiments"):
        shutil.copytree(ROOT / place / "key_function", tmp_path / place / "key_function")
    next(tmp_path.rglob(part)).unlink()

    with pytest.raises(SettingsError, match=rf"the experiment key_function has no \S+/{part}"):
        read_experiments(tmp_path)


def test_every_setting_has_a_meaning():
    schema = yaml.safe_load((ROOT / "workflow/schemas/config.schema.yaml").read_text())
    schema["properties"] |= {name: one.schema for name, one in EXPERIMENTS.items()}
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
