"""Two million keys: parts change no byte of what is found, within a stated memory."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from retrieval_artifacts import files_of, make_index, to_make, write_datastore

from knnlm.lm.scoring import DTYPES
from knnlm.retrieval.neighbors import load_neighbors, merge_neighbors
from knnlm.runtime.artifacts import save_array, write_manifest

N_KEYS, DIM = 2_000_000, 64
ROWS_PER_SHARD = 1 << 18  # 32 MiB of fp16 keys; the last of 8 shards is short
N_QUERIES, K = 48, 64
SITE = "ffn_input_after_layer_norm"
N_CHECKED = 4  # queries that are compared with every key in float64
ONE_GB = 10**9
MADE_FROM = {"model": "a model", "tokens": "its tokens"}
JOB = """
import json, sys
from pathlib import Path
import knnlm.retrieval.search
from knnlm.retrieval.parts import Part
from knnlm.runtime.making import Target
output, folders, search, part = json.loads(sys.argv[1])
knnlm.retrieval.search.available_device = lambda: "cpu"
folders = {name: Path(path) for name, path in folders.items()}
target = Target(Path(output), "f", {"seed": "0"})
knnlm.retrieval.search.search_part(target, **folders, search=search, part=Part(*part))
status = dict(line.split(":") for line in Path("/proc/self/status").read_text().splitlines())
print(1024 * int(status["VmHWM"].split()[0]))  # ru_maxrss would begin with that of the parent
"""


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """A datastore of 256 MB with duplicates in distant shards, queries, and the exact engine."""
    folder = tmp_path_factory.mktemp("large")
    rng = np.random.default_rng(0)
    low, directions = (rng.standard_normal(s, np.float32) for s in ((N_KEYS, 8), (8, DIM)))
    keys = (low @ directions).astype(np.float16)
    keys[rng.integers(0, N_KEYS, 500)] = keys[:1]
    write_datastore(
        folder / "datastore",
        keys,
        rows_per_shard=ROWS_PER_SHARD,
        settings={"site": SITE},
        made_from=MADE_FROM,
    )
    queries = keys[rng.integers(0, N_KEYS, N_QUERIES)].astype(np.float32)
    queries[1:] += 0.1 * rng.standard_normal((N_QUERIES - 1, DIM), np.float32)
    queries[0] = keys[0]
    write_queries(folder / "queries", queries)
    make_index(folder / "index", datastore=folder / "datastore", index={"engine": "exact"})
    return folder, keys, queries


def write_queries(folder, hidden):
    save_array(folder / f"{SITE}.npy", hidden)
    for name, dtype in DTYPES.items():
        save_array(folder / f"{name}.npy", np.zeros(len(hidden), dtype))
    write_manifest(folder, kind="queries", settings={}, made_from=MADE_FROM, contents={})


def search_in_a_process(inputs, output, part):
    """Search a part in a process of its own; return the bytes that it had resident at most."""
    folder = inputs[0]
    folders = {role: str(folder / role) for role in ("datastore", "index", "queries")}
    search = {
        "k": K,
        "block_queries": 32,
        "recall_sample": 10,
        "keys_mib": 64,
        "scores_mib": 64,
    }
    done = subprocess.run(
        [sys.executable, "-c", JOB, json.dumps([str(output), folders, search, part])],
        env={"PYTHONPATH": str(Path(__file__).parents[2] / "scripts"), "OMP_NUM_THREADS": "2"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


def nearest_of_all(query, keys):
    """Return ids and distances of the K nearest in float64, a shard at a time."""
    shards = np.split(keys, range(ROWS_PER_SHARD, N_KEYS, ROWS_PER_SHARD))
    distances = np.concatenate([((s.astype(np.float64) - query) ** 2).sum(1) for s in shards])
    ids = np.argsort(distances, kind="stable")[:K]
    return ids, distances[ids]


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_exact_search_in_parts_equals_one_part_and_the_definition_within_a_gigabyte(
    inputs, tmp_path
):
    _, keys, queries = inputs
    peaks = []
    for count in (1, 3):
        parts = [tmp_path / f"{count}-part{number}" for number in range(count)]
        for number, part in enumerate(parts):
            peaks.append(search_in_a_process(inputs, part, (number, count)))
        merge_neighbors(to_make(tmp_path / f"{count}" / "neighbors"), parts=parts)

    assert files_of(tmp_path / "3") == files_of(tmp_path / "1")
    assert max(peaks) < ONE_GB
    found = load_neighbors(tmp_path / "3" / "neighbors")
    np.testing.assert_array_equal(found.values, found.ids % (1 << 16))
    for query in range(N_CHECKED):
        ids, distances = nearest_of_all(queries[query], keys)
        np.testing.assert_array_equal(found.ids[query], ids)
        np.testing.assert_allclose(found.distances[query], distances, rtol=1e-5, atol=1e-12)
    assert found.distances[0, -1] == 0, "the first query has more identical keys than neighbors"
