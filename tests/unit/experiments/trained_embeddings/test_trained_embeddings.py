"""Embeddings go on after a kill, are scored as they were trained, and are compared in pairs."""

import copy

import numpy as np
import pytest
from retrieval_artifacts import make_datastore, write_inputs, write_model
from scored_run_artifacts import CORPUS, SETTINGS, write_run

from knnlm.evidence.tables import select
from knnlm.experiments.trained_embeddings import stored_embeddings
from knnlm.experiments.trained_embeddings.checks import check
from knnlm.experiments.trained_embeddings.figure import draw
from knnlm.experiments.trained_embeddings.sizes import Size
from knnlm.experiments.trained_embeddings.stored_embeddings import (
    KIND,
    load_embeddings,
    train_embeddings,
)
from knnlm.experiments.trained_embeddings.table import evaluate
from knnlm.retrieval.datastore import open_datastore
from knnlm.retrieval.output_embeddings import (
    OutputEmbeddings,
    embeddings_log_probs,
    rows_in_proportion,
)
from knnlm.runtime.artifacts import ArtifactError, identity, save_array, write_manifest
from knnlm.runtime.making import Target
from knnlm.runtime.settings import SettingsError

SIZES = ["1", "2", "2_by_frequency", "2_by_loss"]
TRAINING = {
    "epochs": 2,
    "batch_size": 32,
    "accumulation": 1,
    "optimizer": {"name": "adam", "lr": 0.02, "betas": [0.9, 0.999], "weight_decay": 0.0},
    "schedule": {"name": "linear", "warmup_steps": 0, "decay_share": 1.0},
    "clip_norm": None,
    "precision": "fp32",
    "save_every": 3,
    "buffer_mib": 1,
}
SITES = {"att": "ffn_input_after_layer_norm", "ffn": "output_after_layer_norm"}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Return a model and a datastore of its keys."""
    root = tmp_path_factory.mktemp("embedded")
    lm = write_inputs(root)
    options = {"site": SITES["att"], "stride": 4, "dtype": "float16", "shard_mib": 1}
    make_datastore(root / "datastore", **options, **lm)
    return {"model": lm["model"], "datastore": root / "datastore"}


def make(folders, output, sizes=SIZES):
    target = Target(output, "f", {"datastore": "base", "seed": "0"})
    train_embeddings(target, sizes=sizes, settings=TRAINING, **folders)
    return output


def stored(folders, folder):
    return dict(load_embeddings(folder, datastore=identity(folders["datastore"], kind="datastore")))


def test_rows_are_dealt_out_by_what_train_says(folders, tmp_path):
    store = open_datastore(folders["datastore"])
    keys = np.concatenate([shard.datastore_keys for shard in store])
    values = np.concatenate([shard.datastore_values for shard in store]).astype(np.int64)

    found = stored(folders, make(folders, tmp_path / "out"))

    assert list(found) == SIZES
    vocabulary = len(found["1"].counts)
    frequency = np.bincount(values, minlength=vocabulary)
    assert np.all(found["1"].counts.numpy() == 1)
    assert np.all(found["2"].counts.numpy() == 2)
    by_frequency = found["2_by_frequency"].counts.numpy()
    assert by_frequency.tolist() == rows_in_proportion(frequency, vectors=2).tolist()
    nats = -embeddings_log_probs(found["1"], keys, values)
    loss = np.array([nats[values == word].sum() for word in range(vocabulary)])
    assert (
        found["2_by_loss"].counts.numpy().tolist() == rows_in_proportion(loss, vectors=2).tolist()
    )
    start = OutputEmbeddings(np.ones(vocabulary, int), dim=store.dim, seed=0)
    untrained = embeddings_log_probs(start, keys, values).mean()
    assert -nats.mean() > untrained + 0.1


def test_a_training_that_dies_goes_on_with_the_next_size_to_the_same_bytes(
    folders, tmp_path, monkeypatch
):
    whole = make(folders, tmp_path / "whole")
    real, begun = stored_embeddings.train_on_shuffled, []

    def die_in_the_third(module, *arguments, **named):
        begun.append(len(module.weight))
        if len(begun) == 3:
            raise KeyboardInterrupt
        return real(module, *arguments, **named)

    monkeypatch.setattr(stored_embeddings, "train_on_shuffled", die_in_the_third)
    with pytest.raises(KeyboardInterrupt):
        make(folders, tmp_path / "killed")
    assert not (tmp_path / "killed").exists()

    killed = make(folders, tmp_path / "killed")

    assert len(begun) == 5, "a finished size was trained again"
    for path in whole.iterdir():
        assert path.read_bytes() == (killed / path.name).read_bytes()


def test_a_datastore_of_another_model_is_an_error(folders, tmp_path):
    other = write_model(tmp_path / "other", folders["model"].parent / "tokenizer", seed=1)

    with pytest.raises(ArtifactError, match="made from another model"):
        make({**folders, "model": other}, tmp_path / "out")


def test_a_truncated_file_is_an_error(folders, tmp_path):
    file = make(folders, tmp_path / "out", ["1"]) / "1.safetensors"
    file.write_bytes(b"\0" * file.stat().st_size)

    with pytest.raises(ArtifactError, match=r"1\.safetensors cannot be read"):
        stored(folders, tmp_path / "out")


def write_embeddings(folder, datastore, queries, site, seed):
    """Write a datastore's manifest, keys of the queries, and embeddings of two sizes."""
    names = {"datastore": datastore.parent.name, "seed": "0"}
    datastore.mkdir(parents=True)
    contents = {"settings": {}, "made_from": {}, "contents": {"of": site}}
    write_manifest(datastore, kind="datastore", names=names, **contents)
    for split in queries:
        n = len(np.load(split / "targets.npy"))
        states = np.random.default_rng(seed + len(split.parts)).standard_normal((n, 4))
        save_array(split / f"{site}.npy", states.astype(np.float32))
    folder.mkdir(parents=True)
    sizes = ["1", "2", "2_by_loss"]
    rows = (np.ones(9, int), np.full(9, 2), np.arange(9) + 1)
    for name, counts in zip(sizes, rows, strict=True):
        module = OutputEmbeddings(counts, dim=4, seed=seed + Size.named(name).vectors)
        stored_embeddings.save_file(module.state_dict(), folder / f"{name}.safetensors")
    write_manifest(
        folder,
        kind=KIND,
        names=names,
        settings={},
        made_from={"datastore": identity(datastore, kind="datastore")},
        contents={"sizes": sizes},
    )


@pytest.fixture
def evaluated(tmp_path):
    inputs = write_run(
        tmp_path, seeds=[0], models=["base"], datastores=["base", "of_output"], indexes=["exact"]
    )
    inputs |= {"datastores": [], "embeddings": []}
    stores = {"base": SITES["att"], "of_output": SITES["ffn"]}
    for number, (name, site) in enumerate(stores.items()):
        place = tmp_path / "datastores" / name / "seed0"
        folder = tmp_path / "output_embeddings" / name / "seed0"
        write_embeddings(folder, place, inputs["queries"], site, number)
        inputs["datastores"].append(place)
        inputs["embeddings"].append(folder)
    blocks = {
        name: {"model": "base", "site": site, "queries": None} for name, site in stores.items()
    }
    own = {"ffn_datastore": "of_output", "vectors": {"att": SIZES, "ffn": SIZES}}
    settings = SETTINGS | {"lm_seeds": [0], "datastores": blocks, "trained_embeddings": own}
    return inputs, settings, evaluate(inputs, settings)["table"]


def value(table, setting, metric, method="embeddings"):
    return select(table, method=method, setting=setting, metric=metric)["value"].item()


def test_the_table_is_what_the_definitions_give(evaluated):
    inputs, _, table = evaluated
    test = next(path for path in inputs["queries"] if path.name == "test")
    lm, targets = np.load(test / "lm_log_probs.npy"), np.load(test / "targets.npy")
    states = np.load(test / f"{SITES['att']}.npy")
    module = OutputEmbeddings(np.ones(9, int), dim=4, seed=1)
    own = embeddings_log_probs(module, states, targets)
    lmbda = value(table, "att/1/interpolated", "lmbda")
    mixed = np.log((1 - lmbda) * np.exp(lm) + lmbda * np.exp(own))

    for way, log_probs in {
        "alone": own, "interpolated": mixed, "oracle": np.maximum(lm, own)
    }.items():  # fmt: skip
        expected = np.exp(-log_probs.mean())
        found = value(table, f"att/1/{way}", "perplexity_per_token")
        np.testing.assert_allclose(found, expected, rtol=1e-6)
    levels = [
        np.exp(-lm.mean()),
        value(table, "att/interpolated", "perplexity_per_token", "knn_lm"),
    ]
    share = 100 * (levels[0] - np.exp(-mixed.mean())) / (levels[0] - levels[1])
    found = value(table, "att/1/interpolated", "share_of_knn_gain")
    np.testing.assert_allclose(found, share, rtol=1e-6)


def test_each_size_is_compared_with_its_rivals(evaluated):
    *_, table = evaluated
    metrics = table.groupby("setting")["metric"].agg(set)

    assert "nats_per_token_vs_ffn" in metrics["att/1/alone"]
    assert "nats_per_token_vs_one_vector" not in metrics["att/1/alone"]
    assert "nats_per_token_vs_even" in metrics["att/2_by_loss/oracle"]
    assert "nats_per_token_vs_ffn" not in metrics["ffn/1/alone"]
    assert "perplexity_per_token_change_vs_knn_lm" in metrics["ffn/2/interpolated"]
    assert "share_of_targets_without_neighbor" in metrics["att/alone"]
    assert len(draw({"table": table}).axes) == 3


def test_embeddings_of_another_datastore_are_an_error(evaluated):
    inputs, settings, _ = evaluated
    parts = {"settings": {"another": True}, "made_from": {}, "contents": {}}
    names = {"datastore": "base", "seed": "0"}
    write_manifest(inputs["datastores"][0], kind="datastore", names=names, **parts)

    with pytest.raises(ArtifactError, match="made from another datastore"):
        evaluate(inputs, settings)


CHECKED = {
    "corpus": CORPUS,
    "baseline": {"datastore": "base"},
    "tokenizers": {"own": {"vocabulary_size": 2048}},
    "models": {
        "base": {
            "source": "trained", "tokenizer": "own", "width": 64, "ffn_width": 256, "layers": 2,
            "context": 128, "tied_embeddings": True,
        },
    },
    "datastores": {
        "base": {"model": "base", "site": SITES["att"]},
        "of_output": {"model": "base", "site": SITES["ffn"]},
    },
    "trained_embeddings": {
        "ffn_datastore": "of_output",
        "vectors": {"att": ["1", "6"], "ffn": ["1"]},
        "memory_gib": 1,
        "training": {"batch_size": 512, "accumulation": 1, "epochs": 2, "buffer_mib": 32},
    },
}  # fmt: skip


@pytest.mark.parametrize(
    ("path", "wrong", "message"),
    [
        (("vectors", "att"), ["1", "200"], "at most 1 GiB .* got 200 vectors a word with 2.7 GiB"),
        (("vectors", "ffn"), ["2", "1"], "vectors.ffn: expected '1' as the first"),
        (("ffn_datastore",), "base", "trained_embeddings.ffn_datastore: expected a datastore of"),
    ],
)
def test_settings_that_cannot_be_are_an_error_before_any_job(path, wrong, message):
    settings = copy.deepcopy(CHECKED)
    check(settings)
    block = settings["trained_embeddings"]
    for name in path[:-1]:
        block = block[name]
    block[path[-1]] = wrong

    with pytest.raises(SettingsError, match=message):
        check(settings)


def test_a_baseline_with_other_keys_is_an_error_before_any_job():
    settings = copy.deepcopy(CHECKED)
    settings["datastores"]["base"]["site"] = SITES["ffn"]

    with pytest.raises(SettingsError, match=r"baseline.datastore: expected a datastore of model"):
        check(settings)
