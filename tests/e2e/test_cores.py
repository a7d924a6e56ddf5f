"""Compute threads are a setting of the scale: the cores of a machine change no number."""

import hashlib

from workflow_project import ROOT, Project

RESULTS = "results/tiny"
NEIGHBORS = (
    f"{RESULTS}/neighbors/base/seed0/exact/gazetteer/test"  # of a trained LM and its datastore
)
TWO = "threads: {train: 2, encode: 2, search: 2, fine_tune: 2}\n"  # --cores 1 lowers them to 1


def test_one_core_and_eight_give_the_same_bytes(tmp_path):
    found = []
    for cores in ("1", "8"):
        (tmp_path / cores).mkdir()
        project = Project(tmp_path / cores)
        project.environment.pop("OMP_NUM_THREADS", None)  # of the tests; a user has none
        (project.folder / "two.yaml").write_text(TWO)
        overlays = (str(ROOT / "tests" / "tiny.yaml"), "two.yaml")

        project.snakemake(NEIGHBORS, "--cores", cores, "--configfile", *overlays)

        results = project.folder / RESULTS
        found.append(
            {
                path.relative_to(results): hashlib.sha256(path.read_bytes()).hexdigest()
                for path in results.rglob("*")
                if path.is_file() and not {"logs", "benchmarks"} & set(path.parts)
            }
        )

    assert found[0] == found[1]
    assert any(path.name == "model.safetensors" for path in found[0])
