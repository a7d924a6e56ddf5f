"""Soft labels and the interpolated loss are what their definitions give, and trainings resume."""

import json
from copy import deepcopy
from dataclasses import replace

import numpy as np
import pytest
import torch
from lm_artifacts import MODEL
from retrieval_artifacts import files_of, make_datastore, write_inputs, write_model
from scored_run_artifacts import write_point
from torch.nn import functional

from knnlm.lm import pretraining
from knnlm.lm.model import load_model
from knnlm.lm.objectives import Batch, TrainDistributions, interpolated_loss, soft_label_loss
from knnlm.lm.pretraining import next_token_loss, train_language_model
from knnlm.retrieval.train_distributions import find_train_distributions
from knnlm.runtime.artifacts import ArtifactError, read_manifest
from knnlm.runtime.making import Target
from knnlm.text.tokens import load_tokens

B, T, V, M, LMBDA = 3, 4, 11, 5, 0.3
SEARCH = {"block_queries": 100, "keys_mib": 1, "scores_mib": 1}
OBJECTIVES = {
    "soft_labels_of_lm": {"name": "soft_labels", "teacher": "base", "datastore": None},
    "soft_labels_of_knn_lm": {"name": "soft_labels", "teacher": "base", "datastore": "base"},
    "interpolated_loss": {"name": "interpolated_loss", "teacher": "base", "datastore": "base"},
}


def random_batch(seed=0):
    """Return p_kNN over all tokens, dense, and the batch that keeps the likeliest of it."""
    draw = torch.Generator().manual_seed(seed)
    dense = torch.rand(B, T, V, generator=draw, dtype=torch.float64).pow(4)
    dense = dense / dense.sum(-1, keepdim=True)
    ids = torch.randint(V, (B, T + 1), generator=draw)
    kept = dense.topk(M, dim=-1)
    target = dense.gather(-1, ids[:, 1:, None]).squeeze(-1)
    return dense, Batch(ids, kept.indices, kept.values, target)


def random_log_probs(seed):
    draw = torch.Generator().manual_seed(seed)
    return torch.randn(B, T, V, generator=draw, dtype=torch.float64).log_softmax(-1)


def test_soft_labels_are_the_kept_tokens_of_knn_and_the_rest_of_the_lm():
    dense, batch = random_batch()
    log_probs, teacher = random_log_probs(1), random_log_probs(2).exp()
    loss, total = 0.0, []
    for b, t in np.ndindex(B, T):
        label = np.zeros(V)
        for word in np.argsort(-dense[b, t].numpy())[:M]:
            label[word] = LMBDA * dense[b, t, word]
        label += (1 - label.sum()) * teacher[b, t].numpy()
        total.append(label.sum())
        loss -= (label * log_probs[b, t].numpy()).sum() / (B * T)

    found = soft_label_loss(log_probs, teacher, batch, LMBDA)

    np.testing.assert_allclose(total, 1.0)
    np.testing.assert_allclose(found, loss, rtol=1e-6)


def test_all_of_knn_kept_is_the_cross_entropy_to_the_knn_lm():
    dense, batch = random_batch()
    log_probs, teacher = random_log_probs(1), random_log_probs(2).exp()
    every = torch.arange(V).expand(B, T, V)
    whole = batch._replace(values=every, probabilities=dense)

    found = soft_label_loss(log_probs, teacher, whole, LMBDA)

    knn_lm = LMBDA * dense + (1 - LMBDA) * teacher
    torch.testing.assert_close(found, -(knn_lm * log_probs).sum(-1).mean())
    nothing = batch._replace(values=batch.values[..., :0], probabilities=dense[..., :0])
    alone = functional.cross_entropy(log_probs.flatten(0, 1), teacher.flatten(0, 1))
    torch.testing.assert_close(soft_label_loss(log_probs, teacher, nothing, 0.0), alone)


def test_the_interpolated_loss_is_the_nll_of_the_mixture():
    dense, batch = random_batch()
    log_probs, targets = random_log_probs(1), batch.ids[:, 1:, None]
    mixture = LMBDA * dense + (1 - LMBDA) * log_probs.exp()

    found = interpolated_loss(log_probs, batch, LMBDA)

    torch.testing.assert_close(found, -mixture.gather(-1, targets).log().mean())
    none = batch._replace(target_probabilities=torch.zeros(B, T).double())
    only_lm = -(np.log1p(-LMBDA) + log_probs.gather(-1, targets)).mean()
    torch.testing.assert_close(interpolated_loss(log_probs, none, LMBDA), only_lm)


def test_gradients_are_those_of_finite_differences():
    _, batch = random_batch()
    logits, teacher = random_log_probs(1).requires_grad_(), random_log_probs(2).exp()

    for loss in (
        lambda x: soft_label_loss(x.log_softmax(-1), teacher, batch, LMBDA),
        lambda x: interpolated_loss(x.log_softmax(-1), batch, LMBDA),
    ):
        assert torch.autograd.gradcheck(loss, logits)


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """Return tokens, tokenizer, a teacher and p_kNN of train in the teacher's datastore."""
    root = tmp_path_factory.mktemp("taught")
    lm = write_inputs(root)
    store = root / "datastores" / "base" / "seed0"
    options = {"stride": 4, "dtype": "float16", "shard_mib": 1}
    make_datastore(store, site="ffn_input_after_layer_norm", **options, **lm)
    place = root / "tuned" / "base" / "seed0.json"
    tuned = write_point(place, (6, 3.0, 0.4), datastore="base", seed="0")
    target = Target(root / "distributions", "f", {"datastore": "base", "seed": "0"})
    read = MODEL["training"]["tokens"] // MODEL["context"]
    options = {"search": SEARCH, "windows": [(MODEL["context"], read)]}
    find_train_distributions(target, datastore=store, tuned=tuned, **options)
    return {
        "tokens": lm["tokens"],
        "tokenizer": root / "tokenizer",
        "teacher": lm["model"],
        "distributions": root / "distributions",
    }


def train(inputs, output, name, **changed):
    model = deepcopy(MODEL)
    model["training"] |= {"objective": OBJECTIVES[name], **changed.pop("training", {})}
    given = {**inputs, **changed}
    if OBJECTIVES[name]["datastore"] is None:
        given["distributions"] = None
    train_language_model(Target(output, "f", {"seed": "0"}), model=model, **given)
    return output


@pytest.mark.parametrize("name", OBJECTIVES)
def test_a_killed_training_goes_on_to_the_same_bytes(inputs, tmp_path, name, monkeypatch):
    whole, real, done = train(inputs, tmp_path / "whole", name), pretraining.train, []

    def dying(*arguments, batch_at, **named):
        def batch(number):
            done.append(number)
            if len(done) == 40:
                raise KeyboardInterrupt
            return batch_at(number)

        return real(*arguments, batch_at=batch, **named)

    monkeypatch.setattr(pretraining, "train", dying)
    with pytest.raises(KeyboardInterrupt):
        train(inputs, tmp_path / "killed", name)
    assert list((tmp_path / "partial" / "killed").glob("*/state.safetensors"))

    killed = train(inputs, tmp_path / "killed", name)

    assert max(np.bincount(done)) == 2, "no batch was read again"
    assert min(done[40:]) > 0, "the training began at the beginning"
    assert files_of(killed) == files_of(whole)


def test_an_lm_learns_what_its_teacher_says(inputs, tmp_path):
    teacher = load_model(inputs["teacher"])
    tokens = load_tokens(inputs["tokens"], "train").tokens[:160].astype(np.int64)
    windows = torch.from_numpy(tokens.reshape(-1, MODEL["context"]))

    def divergence(folder):
        with torch.no_grad():
            labels = teacher(windows).logits.log_softmax(-1)
            own = load_model(folder)(windows).logits.log_softmax(-1)
        return (labels.exp() * (labels - own)).sum(-1).mean()

    longer = {"tokens": 6_400, "optimizer": MODEL["training"]["optimizer"] | {"lr": 0.02}}
    taught = train(inputs, tmp_path / "taught", "soft_labels_of_lm", training=longer)
    plain = deepcopy(MODEL)
    plain["training"] |= longer
    given = {name: inputs[name] for name in ("tokens", "tokenizer")}
    train_language_model(Target(tmp_path / "plain", "f", {"seed": "0"}), model=plain, **given)

    assert divergence(taught) < 0.7 * divergence(tmp_path / "plain")


def test_what_was_learned_from_is_recorded(inputs, tmp_path):
    made = read_manifest(train(inputs, tmp_path / "model", "interpolated_loss"), kind="model")

    assert set(made["made_from"]) == {"tokens", "tokenizer", "teacher", "distributions"}


def test_soft_labels_from_neighbors_of_another_model_are_refused(inputs, tmp_path):
    other = write_model(tmp_path / "other", inputs["tokenizer"], seed=1)

    with pytest.raises(ArtifactError, match="distributions was made from another model"):
        train(inputs, tmp_path / "model", "soft_labels_of_knn_lm", teacher=other)


def test_windows_that_no_search_was_made_for_are_an_error(inputs, tmp_path):
    found = TrainDistributions.load(inputs["distributions"])
    some = replace(found, positions=found.positions[::2])

    with pytest.raises(ArtifactError, match="p_kNN of every position that is trained on"):
        some.at(torch.zeros(1, 9).long(), np.array([found.positions[0]]))


def test_windows_have_the_distributions_of_their_positions(inputs):
    found = TrainDistributions.load(inputs["distributions"])
    np.testing.assert_array_equal(np.diff(found.positions), 1)  # a place is a position
    assert found.positions[0] == 0
    stream = load_tokens(inputs["tokens"], "train").tokens.astype(np.int64)
    starts = np.array([17, 3])
    ids = torch.from_numpy(stream[starts[:, None] + np.arange(9)])

    batch = found.at(ids, starts)

    assert found.lmbda == json.loads(
        (inputs["distributions"] / "manifest.json").read_text()
    )["settings"]["lmbda"]  # fmt: skip
    for row, column in np.ndindex(2, 8):
        place, target = starts[row] + column, int(ids[row, column + 1])
        assert torch.equal(batch.values[row, column], torch.from_numpy(found.values[place]).long())
        known = dict(zip(found.values[place], found.probabilities[place], strict=True))
        if target in known and known[target] > 0:
            np.testing.assert_allclose(
                known[target], batch.target_probabilities[row, column], rtol=1e-5
            )


def test_the_plain_objective_is_the_nll_of_the_text(inputs):
    network, ids = load_model(inputs["teacher"]), torch.arange(18).reshape(2, 9)

    objective = pretraining._objective(MODEL["training"], None, None)

    assert torch.equal(objective.batch(ids, np.zeros(2)), ids)
    assert objective.loss(network, ids) == next_token_loss(network, ids)
