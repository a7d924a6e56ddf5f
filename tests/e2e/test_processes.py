"""Several processes for one training, started as a profile would ask for them."""

import shutil

import numpy as np
import pandas as pd
from workflow_project import TINY

MODEL = "results/tiny/models/base/seed0"
LOG = "results/tiny/logs/train_language_model/base/seed0.log"


def test_two_processes_have_the_loss_curve_of_one(copied, finished):
    shutil.rmtree(copied.folder / MODEL)

    copied.snakemake(*TINY, "--set-resources", "train_language_model:processes=2", "--", MODEL)

    assert "2 processes share the 2 forward passes" in (copied.folder / LOG).read_text()
    one, two = (pd.read_parquet(p.folder / MODEL / "training.parquet") for p in (finished, copied))
    assert list(two.columns) == list(one.columns)
    np.testing.assert_allclose(two, one, rtol=1e-4)


def test_processes_that_cannot_share_an_update_are_refused(copied):
    shutil.rmtree(copied.folder / MODEL)
    asked = ("--set-resources", "train_language_model:processes=3")

    done = copied.snakemake(*TINY, *asked, "--", MODEL, check=False)

    assert done.returncode != 0
    assert "accumulation that 3 processes can share evenly, got 2" in done.stdout
