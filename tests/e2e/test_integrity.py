"""A run is whole or says so, two runs do not mix, and one cache serves two checkouts."""

import random
import subprocess
import time
from collections import Counter
from pathlib import Path

import pytest
import yaml
from faults import RESULTS, copy_results
from workflow_project import TINY, Project

from knnlm.runtime.artifacts import MANIFEST
from knnlm.runtime.verification import RECORD, artifacts_in, files_in, verify

SEED = 20_240_612  # of the flipped bytes
TABLE = RESULTS / "tables/knn_perplexity.csv"
CACHED = {
    "train_tokenizer",
    "train_language_model",
    "build_datastore_part",
    "train_index",
    "encode_index_part",
}


@pytest.fixture
def copied_results(finished, tmp_path) -> Project:
    """Return a project of its own with the results of the finished one."""
    return Project(copy_results(finished, tmp_path))


def kind_of(path: Path) -> str:
    """Return what a file is: its artifact without names and numbers, and its own name without."""
    parts = [part for part in path.parts[2:] if not part.startswith("seed")]
    engine = f"/{parts[2]}" if parts[0] in ("indexes", "neighbors") else ""
    return f"{parts[0]}{engine}/{path.name if path.name == MANIFEST else '*' + path.suffix}"


def flip(path: Path, at: int) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 1 << (at % 8)
    path.write_bytes(content)


@pytest.mark.slow
def test_a_flipped_byte_is_found_in_every_kind_of_file(copied_results, monkeypatch, request):
    monkeypatch.chdir(copied_results.folder)
    draw = random.Random(SEED)
    assert verify(RESULTS).problems == []
    artifacts = artifacts_in(RESULTS)
    kinds: dict[str, list[Path]] = {}
    for path in sorted([*files_in(RESULTS), RESULTS / RECORD]):
        if path.stat().st_size:
            kinds.setdefault(kind_of(path), []).append(path)

    found = Counter()
    for kind, paths in kinds.items():
        for _ in range(request.config.getoption("flips")):
            path = draw.choice(paths)
            at = draw.randrange(path.stat().st_size)
            whole = path.read_bytes()
            flip(path, at)
            problems = verify(RESULTS).problems
            path.write_bytes(whole)
            assert problems, f"byte {at} of {path} was flipped and nobody saw it"
            made = [
                folder
                for folder in (*artifacts, RESULTS / "report/tables")
                if folder in path.parents
            ]
            rebuild = made[0] if made else path
            assert path.name == RECORD or rebuild in {problem.rebuild for problem in problems}
            found[kind] += 1
    print(f"{sum(found.values())} flips in {len(found)} kinds of files, all found, seed {SEED}")
    print("\n".join(f"{kind}: {count}" for kind, count in sorted(found.items())))
    assert {path.relative_to(RESULTS).parts[0] for path in files_in(RESULTS)} == {
        kind.split("/")[0] for kind in found
    } - {RECORD}
    assert found.keys() >= {
        "explorer/*.json",
        "indexes/ivfpq/*.npy",
        "neighbors/fused/*.npz",
        "report/*.html",
        "tuned/*.json",
    }


@pytest.mark.slow
def test_verify_says_what_to_remove_and_the_same_command_makes_it_anew(copied_results, finished):
    figure = copied_results.folder / RESULTS / "figures/knn_perplexity.svg"
    whole = copied_results.snakemake(*TINY, "verify")
    flip(figure, figure.stat().st_size // 2)

    broken = copied_results.snakemake(*TINY, "verify", check=False)
    figure.unlink()
    copied_results.snakemake(*TINY, "all")
    mended = copied_results.snakemake(*TINY, "verify")

    assert "every byte is what was written" in whole.stdout
    assert broken.returncode != 0
    assert f"rm -rf {RESULTS}/figures/knn_perplexity.svg" in broken.stdout
    assert "every byte is what was written" in mended.stdout
    expected = finished.folder / RESULTS / "figures/knn_perplexity.svg"
    assert figure.read_bytes() == expected.read_bytes()


@pytest.mark.slow
def test_a_second_run_in_one_folder_is_refused_and_harms_nothing(copied_results, finished):
    project = copied_results
    (project.folder / TABLE).unlink()
    command = project.command(*TINY, "--", str(TABLE))
    first = subprocess.Popen(
        command,
        cwd=project.folder,
        env=project.environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    while first.poll() is None and not [*(project.folder / ".snakemake/locks").glob("*")]:
        time.sleep(0.01)

    second = project.snakemake(*TINY, "--", str(TABLE), check=False)

    assert first.poll() is None, "the first run was done before the second began"
    assert second.returncode != 0
    assert "cannot be locked" in second.stdout
    assert "--unlock" in second.stdout
    assert first.wait(timeout=300) == 0
    assert (project.folder / TABLE).read_bytes() == (finished.folder / TABLE).read_bytes()


@pytest.mark.slow
def test_a_cache_serves_two_checkouts_and_only_what_is_the_same(tmp_path):
    (tmp_path / "cache").mkdir()
    neighbors = "neighbors/base/seed0/ivf_flat/gazetteer/validation"
    first, second = (Project(new_folder(tmp_path / name)) for name in ("first", "second"))
    runs = [(first, "tiny"), (second, "other")]
    for project, _ in runs:
        project.environment |= {"SNAKEMAKE_OUTPUT_CACHE": str(tmp_path / "cache")}

    first.snakemake(*TINY, "--cache", "--", f"results/tiny/{neighbors}")
    second.snakemake(*TINY, "--cache", "--config", "run=other", "--", f"results/other/{neighbors}")

    assert made_in(first) >= CACHED
    assert not made_in(second) & CACHED, "the second checkout made what the first had put there"
    for file in ("block-00000.npz", MANIFEST):
        theirs = first.folder / "results/tiny" / neighbors / file
        assert (
            second.folder / "results/other" / neighbors / file
        ).read_bytes() == theirs.read_bytes()
    assert "every byte" in second.snakemake(*TINY, "verify", "--config", "run=other").stdout

    tiny = yaml.safe_load(Path(TINY[0].split("=")[1]).read_text())
    tiny["models"]["base"]["training"]["tokens"] //= 2
    (second.folder / "shorter.yaml").write_text(yaml.safe_dump(tiny))
    second.snakemake("--configfile=shorter.yaml", "--cache", "--", "results/tiny/models/base/seed0")
    assert "train_language_model" in made_in(second)
    assert "train_tokenizer" not in made_in(second)


def new_folder(path: Path) -> Path:
    path.mkdir()
    return path


def made_in(project: Project) -> set[str]:
    """Return the rules whose scripts ran in a project: those with something in a log."""
    return {
        path.relative_to(project.folder).parts[3]
        for path in project.folder.glob("results/*/logs/**/*.log")
        if path.stat().st_size  # it is made empty where the result came from the cache
    }
