"""Bytes at the published sizes, against what is counted on a module and on a stored datastore."""

import pytest
import torch

from knnlm.evidence.tables import select, tidy
from knnlm.experiments.mlp_augmentation.published_sizes import (
    PUBLISHED,
    Sizes,
    datastore_bytes,
    mlp_bytes,
    published_rows,
)
from knnlm.retrieval.mlp_replacement import MlpReplacement

NAMES = {"experiment": "mlp_augmentation", "corpus": "gazetteer"}
SMALL = Sizes(entries=1000, dim=8, hidden=32, vocabulary=300, n_centroids=4, code_bytes=2)


@pytest.mark.parametrize("head", ["lm_head_frozen", "lm_head_trained", "random"])
def test_the_bytes_of_an_mlp_are_those_that_the_module_counts(head):
    module = MlpReplacement(
        torch.zeros(SMALL.vocabulary, SMALL.dim),
        head_setting=head,
        hidden=SMALL.hidden,
        activation="relu",
        seed=0,
    )

    assert mlp_bytes(SMALL, own_head=head != "lm_head_frozen") == module.own_bytes


@pytest.mark.parametrize(("vocabulary", "value"), [(256, 1), (257, 2), (65_536, 2), (65_537, 4)])
def test_a_datastore_has_a_key_or_a_code_and_a_value_for_each_entry(vocabulary, value):
    sizes = Sizes(
        entries=1000, dim=8, hidden=32, vocabulary=vocabulary, n_centroids=4, code_bytes=2
    )

    assert datastore_bytes(sizes) == {
        "keys_float16_and_values": 1000 * (8 * 2 + value),
        "ivfpq_and_values": 1000 * (2 + value) + (4 + 256) * 8 * 4,
    }


def test_at_the_published_sizes_the_shares_are_those_of_the_arithmetic():
    table = tidy(published_rows(NAMES))
    # 8.4 M parameters of the MLP and 34.1 M of W in fp32 are 170 MB; keys are 2,048 bytes each,
    # and codes and values 66 bytes.
    shares = {
        ("xu2023", "keys_float16_and_values"): 0.0542,
        ("khandelwal2020", "keys_float16_and_values"): 0.0804,
        ("xu2023", "ivfpq_and_values"): 1.68,
        ("khandelwal2020", "ivfpq_and_values"): 2.49,
    }

    for (paper, way), share in shares.items():
        row = select(
            table,
            method="mlp",
            setting=f"lm_head_trained/at the size of {paper}",
            metric=f"share_of_{way}",
        )
        assert row["value"].item() == pytest.approx(share, rel=3e-3)


def test_keys_of_xu_take_the_space_that_they_print():
    gib = datastore_bytes(PUBLISHED["xu2023"])["keys_float16_and_values"] / 2**30

    assert gib == pytest.approx(293, abs=1)  # they write 293 GB


def test_the_rows_belong_to_no_model_and_no_seed():
    table = tidy(published_rows(NAMES))

    assert set(table["model"]) == set(table["seed"]) == {""}
