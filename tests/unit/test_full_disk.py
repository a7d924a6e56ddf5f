"""A disk that is really full, met by every library that writes for us."""

import os
import shutil
import subprocess

import faiss
import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.numpy import save_file
from tokenizers import Tokenizer, models

from knnlm.lm.model import create_model, save_model
from knnlm.lm.state import Log, save_state
from knnlm.runtime.artifacts import atomic_path, copy_file, save_array, save_json
from knnlm.runtime.full_disk import DiskFullError, named_if_full

NUMBERS = np.random.default_rng(0).random((3000, 100), dtype=np.float32)  # 1.2 MB


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 1 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "none", str(folder)]
    if os.geteuid() or shutil.which("mount") is None or subprocess.run(mount).returncode:
        pytest.skip("a small file system cannot be mounted here: it takes root on Linux")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def write_npz(path):
    with path.open("wb") as file:
        np.savez(file, a=NUMBERS)


def write_index(path):
    index = faiss.IndexFlatL2(NUMBERS.shape[1])
    index.add(NUMBERS)
    faiss.write_index(index, str(path))


def write_tokenizer(path):
    vocabulary = {f"{number:040d}": number for number in range(30_000)}
    Tokenizer(models.BPE(vocabulary, [])).save(str(path))


WRITERS = {
    "npz": write_npz,
    "faiss": write_index,
    "tokenizers": write_tokenizer,
    "safetensors": lambda path: save_file({"a": NUMBERS}, path),
    "parquet": lambda path: pd.DataFrame(NUMBERS).rename(columns=str).to_parquet(path),
    "csv": lambda path: pd.DataFrame(NUMBERS).to_csv(path),
    "raw": lambda path: NUMBERS.tofile(path),
}


@pytest.mark.parametrize("library", WRITERS)
def test_a_full_disk_is_named_whatever_library_met_it(small_disk, library):
    with (
        pytest.raises(DiskFullError, match=r"disk is full while writing .*/file; free some space"),
        atomic_path(small_disk / "file") as temporary,
    ):
        WRITERS[library](temporary)

    assert not list(small_disk.iterdir()), "a half-written file stayed"


def test_an_array_a_document_and_a_copy_name_a_full_disk(small_disk, tmp_path):
    np.save(tmp_path / "big.npy", NUMBERS)

    with pytest.raises(DiskFullError, match=r"a\.npy"):
        save_array(small_disk / "a.npy", NUMBERS)
    with pytest.raises(DiskFullError, match=r"a\.json"):
        save_json(small_disk / "a.json", NUMBERS[:2000].tolist())
    with pytest.raises(DiskFullError, match=r"copy\.npy"):
        copy_file(tmp_path / "big.npy", small_disk / "copy.npy")

    assert not list(small_disk.iterdir())


def test_the_folder_of_a_model_names_a_full_disk(small_disk):
    block = {
        "layers": 1,
        "width": 64,
        "heads": 2,
        "ffn_width": 64,
        "context": 16,
        "activation": "gelu_new",
        "tied_embeddings": True,
        "dropout": {"residual": 0.0, "attention": 0.0, "activation": 0.0},
        "without_mlp": [],
    }
    model = create_model(block, vocabulary_size=6000, seed=0)

    with pytest.raises(DiskFullError, match=r"disk is full while writing .*/model"):
        save_model(model, small_disk / "model")


def test_a_state_that_does_not_fit_leaves_the_one_before_it(small_disk):
    small, big = torch.nn.Linear(8, 8), torch.nn.Linear(600, 600)
    path = small_disk / "state.safetensors"
    save_state(path, small, torch.optim.SGD(small.parameters()), Log(done=1))
    before = path.read_bytes()

    with pytest.raises(DiskFullError, match=r"state\.safetensors"):
        save_state(path, big, torch.optim.SGD(big.parameters()), Log(done=2))

    assert path.read_bytes() == before
    assert list(small_disk.iterdir()) == [path]


def test_other_errors_are_passed_on_as_they_are(tmp_path):
    with pytest.raises(PermissionError, match="not yours"), named_if_full(tmp_path / "file"):
        raise PermissionError(13, "not yours")
    with (
        pytest.raises(OSError, match=r"^9 requested and 1 written$"),
        named_if_full(tmp_path / "f"),
    ):
        raise OSError("9 requested and 1 written")  # NumPy's words, and there is room
