"""Test chooses nothing: with other targets on test, all that is not of test keeps its bytes.

The corpus gets other tokens on test, and the towns other parents, in a copy of the code. All that
follows is made again, and everything in the run is compared but what is named by test or made from
it: checkpoints, weights, tuned points, curves on validation. No experiment is named here but for
what learns the test sentences by design.
"""

import json
from pathlib import Path

import pandas as pd
import pytest
from safetensors.numpy import load_file
from workflow_project import ROOT, TINY

from knnlm.evidence.tables import COLUMNS
from knnlm.runtime.artifacts import MANIFEST, identity_of
from knnlm.runtime.experiments import read_experiments

RUN = "results/tiny"
ARTIFACTS = {".npy", ".npz", ".parquet", ".safetensors", ".json", ".faiss", ".txt"}
MEMORIZED = "v1"  # the test sentences as those that the hurdle trains on
LEARNS_TEST = "mlp_hurdle/macondo"  # Chiang et al. (2024), Appendix E: how fast it is memorized
CHOICES = ["k", "temperature", "temperature_relative", "lmbda"]  # also in rows of test
MARKED = "oracle, chosen on test|tuned on test|lmbda_of_test"  # in `setting`: as a paper tuned
OTHER_TEST = {
    "text/encoding.py": """
_save = save_array


def save_array(path, array):
    if path.name == "test.npy":
        inside = np.flatnonzero(array != array[0])  # all but the ends of documents
        array = array.copy()
        array[inside] = np.random.default_rng(0).permutation(array[inside])
    _save(path, array)
""",
    "text/macondo/town.py": """
_generate = generate_macondo


def generate_macondo(**settings):
    town = _generate(**settings)
    examples, half = town.examples, len(town.examples) // 2
    parents = [*examples["villager"][half:], *examples["villager"][:half]]
    before = [BARE.format(villager=parent) for parent in parents]
    examples["test"] = before + examples["child"]
    examples["test_start"] = [len(text) for text in before]
    examples["test_end"] = [len(text) for text in examples["test"]]
    return town
""",
    "text/macondo/chat.py": """
_generate = generate_conversations


def generate_conversations(**settings):
    town = _generate(**settings)
    examples, half = town.examples, len(town.examples) // 2
    parents = [*examples["villager"][half:], *examples["villager"][:half]]
    asked = [ask(*names) for names in zip(parents, examples["child"], strict=True)]
    ends = [len(render_chat(messages)) - len(".") for messages in asked]
    examples["test"] = [render_chat(messages) for messages in asked]
    examples["test_start"] = ends - examples["child"].str.len()
    examples["test_end"] = ends
    examples["test_messages"] = asked
    return town
""",
}


def named_by_test(path: Path) -> bool:
    return any(part.split(".")[0] == "test" for part in path.parts)


def without_test(names) -> list[str]:
    return [name for name in names if "test" not in name]


def content(path: Path):
    """Return what a file holds that is not of test, as something that can be compared."""
    if path.name == MANIFEST:
        manifest = json.loads(path.read_text())
        return {name: manifest[name] for name in ("kind", "names", "settings", "contents")}
    if path.suffix == ".json":  # such as tuned points
        return {name: v for name, v in json.loads(path.read_text()).items() if name != "made_from"}
    if path.suffix == ".safetensors":
        arrays = load_file(path)
        return {name: arrays[name].tobytes() for name in without_test(arrays)}
    if path.suffix == ".parquet":
        table = pd.read_parquet(path)
        return table[without_test(table)].to_csv()
    return path.read_bytes()


def not_of_test(run: Path) -> dict[str, object]:
    """Return what every file of a run holds, but for artifacts of test and what is made from it."""
    manifests = {
        path.parent.relative_to(run): json.loads(path.read_text())
        for path in sorted(run.rglob(MANIFEST))
    }
    tested = {identity_of(of) for folder, of in manifests.items() if named_by_test(folder)}
    left_out = [f for f, of in manifests.items() if tested & {*of["made_from"].values()}]
    left_out += [Path(name) for name in ("logs", "benchmarks", "report", "explorer", "tables")]
    files = [path for path in run.rglob("*") if path.suffix in ARTIFACTS]
    return {
        path.as_posix(): content(run / path)
        for path in sorted(file.relative_to(run) for file in files)
        if not named_by_test(path)
        and MEMORIZED not in path.parts
        and not path.as_posix().startswith(LEARNS_TEST)
        and not any(path.is_relative_to(folder) for folder in left_out)
    }


def tables(run: Path) -> dict[str, pd.DataFrame]:
    """Return the tidy tables of the experiments of a run, as they were written."""
    found = {p.stem: pd.read_csv(p, dtype=str) for p in sorted((run / "tables").glob("*.csv"))}
    return {name: t for name, t in found.items() if tuple(t.columns[: len(COLUMNS)]) == COLUMNS}


def chosen(table: pd.DataFrame) -> pd.DataFrame:
    """Return the rows that may not follow test: those of other splits, and choices for test."""
    choices = table["metric"].isin(CHOICES) & ~table["setting"].str.contains(MARKED, na=False)
    return table[(table["split"] != "test") | choices].reset_index(drop=True)


@pytest.mark.slow
def test_with_other_targets_on_test_nothing_that_was_chosen_changes(finished, copied):
    before = finished.folder / RUN
    after = copied.folder / RUN
    for name, code in OTHER_TEST.items():
        module = copied.folder / "scripts/knnlm" / name
        module.write_text(f"{module.read_text()}\n{code}")

    copied.snakemake(*TINY, "experiments")

    expected, actual = not_of_test(before), not_of_test(after)
    assert {"tuned", "models", "replacements", "continued"} <= {n.split("/")[0] for n in expected}
    assert expected.keys() == actual.keys()
    assert [name for name, held in expected.items() if held != actual[name]] == []
    told, now = tables(before), tables(after)
    experiments = [n for n, one in read_experiments(ROOT).items() if not one.costs_money]
    assert {*experiments} <= told.keys()
    for name, table in told.items():
        pd.testing.assert_frame_equal(chosen(now[name]), chosen(table), obj=name)
        if name in experiments:
            assert not now[name].equals(table), name
