"""The experiment on a small corpus whose artifacts are written by hand."""

from itertools import product

import numpy as np
import pandas as pd
import pytest

from knnlm.evidence.plotting import look, save_figure
from knnlm.evidence.tables import COLUMNS, read_table, select, write_table
from knnlm.experiments.knn_perplexity.figure import draw_knn_perplexity
from knnlm.experiments.knn_perplexity.table import evaluate_knn_perplexity
from knnlm.lm.scoring import load_queries
from knnlm.retrieval.interpolation import knn_log_probs, mix_log_probs
from knnlm.runtime.artifacts import ArtifactError, identity, save_array, write_manifest
from knnlm.runtime.seeds import numpy_generator

WORDS = ["Ada", "born", "engine", "of", "the", "1815", "."]  # token ids 2, 3, ...
END_OF_DOCUMENT, NEWLINE, FIRST_WORD = 0, 1, 2
N_DOCUMENTS, N_WORDS, K = 40, 10, 8
LENGTH = N_WORDS + 2  # tokens of a document
SEEDS = (0, 1)
INDEXES = ("exact", "ivfpq")
SPLITS = ("validation", "test")
SETTINGS = {
    "control": "longer",
    "index": "exact",
    "indexes": list(INDEXES),
    "grid": {
        "k": [1, 2, 8],
        "temperatures": {"low": 0.05, "high": 5.0, "count": 5},
        "lmbdas": {"low": 0.05, "high": 0.95, "count": 10},
    },
    "published": {"k": 8, "lmbda": 0.25, "temperature": 1.0},
    "bootstrap": {"samples": 200, "seed": 0},
}


def write_text_and_tokens(root, *, generated=True):
    """Documents of ten random words and a line end; a token is a word with the space before it."""
    text, tokens = root / "text", root / "tokens"
    text.mkdir()
    for split in ("train", *SPLITS):
        ids = numpy_generator(0, split).integers(0, len(WORDS), size=(N_DOCUMENTS, N_WORDS))
        written, stream, starts = "", [], []
        for document in ids:
            stream, starts = [*stream, END_OF_DOCUMENT], [*starts, len(written)]
            for word in document:
                starts.append(len(written))
                stream.append(FIRST_WORD + word)
                written += " " + WORDS[word]
            stream, starts = [*stream, NEWLINE], [*starts, len(written)]
            written += "\n"
        (text / f"{split}.txt").write_text(written, encoding="utf-8")
        kinds = np.array(stream)
        save_array(tokens / f"{split}.npy", kinds.astype(np.uint16))
        save_array(tokens / f"{split}.starts.npy", np.array(starts, np.int64))
        offsets = np.arange(N_DOCUMENTS + 1, dtype=np.int64) * LENGTH
        save_array(tokens / f"{split}.documents.npy", offsets)
        save_array(tokens / f"{split}.words.npy", (kinds >= FIRST_WORD).astype(np.uint8))
        save_array(tokens / f"{split}.lines.npy", (kinds == NEWLINE).astype(np.uint8))
    if generated:
        write_facts_and_references(text)
    write_manifest(text, kind="text", settings={}, made_from={}, contents={})
    origin = {"text": identity(text, kind="text")}
    vocabulary = {"vocabulary_size": FIRST_WORD + len(WORDS), "end_of_document": END_OF_DOCUMENT}
    write_manifest(tokens, kind="tokens", settings={}, made_from=origin, contents=vocabulary)
    return text, tokens


def write_facts_and_references(text):
    """Each document of test tells one fact in its first word, every other one told in train."""
    written = (text / "test.txt").read_text(encoding="utf-8")
    starts = [0, *(i + 1 for i, character in enumerate(written[:-1]) if character == "\n")]
    facts = {
        "document": np.arange(N_DOCUMENTS),
        "start": [start + 1 for start in starts],
        "end": [written.index(" ", start + 1) for start in starts],
        "fact": [f"person-{i}.name" for i in range(N_DOCUMENTS)],
        "kind": ["name"] * N_DOCUMENTS,
        "told_in_train": np.arange(N_DOCUMENTS) % 2,
    }
    pd.DataFrame(facts).to_parquet(text / "test.facts.parquet")
    nats = {"knows_grammar_and_facts": 4.0, "has_read_train": 8.0, "knows_grammar": 16.0}
    documents = {"document": np.arange(N_DOCUMENTS)}
    columns = documents | {name: np.full(N_DOCUMENTS, value) for name, value in nats.items()}
    pd.DataFrame(columns).to_parquet(text / "test.references.parquet")


def write_queries(folder, tokens, split, model, seed):
    stream = np.load(tokens / f"{split}.npy")
    positions = np.flatnonzero(stream[1:] != END_OF_DOCUMENT).astype(np.int64)
    low = {"base": 0.1, "longer": 0.3}[model]
    probs = numpy_generator(seed, model, split).uniform(low, 0.6, size=len(positions))
    arrays = {
        "positions": positions,
        "targets": stream[positions + 1].astype(np.int32),
        "lm_log_probs": np.log(probs),
        "documents": (positions // LENGTH).astype(np.int32),
        "words": np.load(tokens / f"{split}.words.npy")[positions + 1],
        "lines": np.load(tokens / f"{split}.lines.npy")[positions + 1],
    }
    for name, array in arrays.items():
        save_array(folder / f"{name}.npy", array)
    origin = {"tokens": identity(tokens, kind="tokens"), "model": model}
    contents = {"queries": len(positions), "sites": []}
    write_manifest(
        folder, kind="queries", settings={"split": split}, made_from=origin, contents=contents
    )
    return folder


def write_neighbors(folder, queries, index):
    """Neighbors of which the nearer ones have the target's value more often."""
    targets = np.load(queries / "targets.npy")
    generator = numpy_generator(0, str(queries.relative_to(queries.parents[2])), index)
    shape = (len(targets), K)
    right = generator.random(shape) < np.linspace(0.7, 0.2, K)
    other = generator.integers(1, FIRST_WORD + len(WORDS), size=shape)
    folder.mkdir(parents=True)
    np.savez(
        folder / "block-00000.npz",
        ids=generator.integers(0, 400, size=shape),
        distances=np.sort(generator.gamma(4.0, size=shape), axis=1).astype(np.float32),
        values=np.where(right, targets[:, None], other).astype(np.int32),
    )
    write_manifest(
        folder,
        kind="neighbors",
        settings={},
        made_from={"queries": identity(queries, kind="queries")},
        contents={
            "n_queries": len(targets),
            "block_queries": len(targets),
            "k": K,
            "recall": 0.75,
            "recall_queries": 16,
        },
    )
    return folder


def write_inputs(root, *, seeds, generated):
    text, tokens = write_text_and_tokens(root, generated=generated)
    queries = {
        model: [
            write_queries(root / f"{model}/seed{seed}/{split}", tokens, split, model, seed)
            for seed, split in product(seeds, SPLITS)
        ]
        for model in ("base", "longer")
    }
    neighbors = [
        write_neighbors(
            root / f"neighbors/seed{seed}/{index}/{split}",
            root / f"base/seed{seed}/{split}",
            index,
        )
        for seed, index, split in product(seeds, INDEXES, SPLITS)
    ]
    return {
        "corpus": "made-up",
        "model": "base",
        "seeds": seeds,
        "settings": SETTINGS,
        "text": text,
        "tokens": tokens,
        "queries": queries["base"],
        "control_queries": queries["longer"],
        "neighbors": neighbors,
    }


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    return write_inputs(tmp_path_factory.mktemp("artifacts"), seeds=SEEDS, generated=True)


@pytest.fixture(scope="module")
def tables(inputs):
    return evaluate_knn_perplexity(**inputs)


def value(table, **names):
    return select(table, **names)["value"].item()


def test_the_table_comes_back_as_written_and_twice_the_same(inputs, tables, tmp_path):
    write_table(tmp_path / "first.csv", tables[0])
    write_table(tmp_path / "second.csv", evaluate_knn_perplexity(**inputs)[0])

    assert tuple(read_table(tmp_path / "first.csv").columns) == COLUMNS
    assert (tmp_path / "first.csv").read_bytes() == (tmp_path / "second.csv").read_bytes()


def test_lm_perplexity_is_that_of_the_stored_log_probs(inputs, tables):
    log_probs = np.load(inputs["queries"][1] / "lm_log_probs.npy")  # seed 0, test

    n_words = N_DOCUMENTS * (N_WORDS + 1)  # line ends are words
    for metric, count in {
        "token": n_words,
        "word": n_words,
        "raw_word": N_DOCUMENTS * N_WORDS,
    }.items():
        actual = value(tables[0], method="lm", seed="0", metric=f"perplexity_per_{metric}")
        assert actual == pytest.approx(np.exp(-log_probs.sum() / count), rel=1e-9)


def test_the_tuned_row_scores_test_at_the_settings_that_validation_chose(inputs, tables):
    chosen = select(tables[0], split="validation", setting="exact/tuned", seed="0")
    settings = chosen.set_index("metric")["value"]
    block = np.load(inputs["neighbors"][1] / "block-00000.npz")
    queries = inputs["queries"][1]
    k = int(settings["k"])

    knn = knn_log_probs(
        block["distances"][:, :k],
        block["values"][:, :k],
        np.load(queries / "targets.npy"),
        temperature=settings["temperature"],
    )
    mixed = mix_log_probs(np.load(queries / "lm_log_probs.npy"), knn, settings["lmbda"])

    names = {"method": "knn_lm", "setting": "exact/tuned", "seed": "0"}
    actual = value(tables[0], **names, metric="perplexity_per_token")
    assert actual == pytest.approx(np.exp(-mixed.mean()), rel=1e-9)
    assert settings["temperature"] == pytest.approx(
        settings["temperature_relative"] * settings["mean_squared_distance"], rel=1e-9
    )


def test_the_published_settings_are_always_a_row(inputs, tables):
    block = np.load(inputs["neighbors"][1] / "block-00000.npz")
    queries = inputs["queries"][1]
    targets, lm = np.load(queries / "targets.npy"), np.load(queries / "lm_log_probs.npy")

    knn = knn_log_probs(block["distances"], block["values"], targets, temperature=1.0)

    names = {"setting": "exact/published", "seed": "0", "metric": "nats_per_token_vs_lm"}
    expected = (lm - np.logaddexp(np.log(0.75) + lm, np.log(0.25) + knn)).mean()
    assert value(tables[0], **names) == pytest.approx(expected, rel=1e-9)
    assert value(tables[0], **names | {"setting": "exact/published_at_tuned_temperature"})


def test_differences_to_lm_and_control_add_up(tables):
    names = {"seed": "0", "split": "test"}
    knn = names | {"method": "knn_lm", "setting": "exact/tuned"}

    to_lm = value(tables[0], **knn, metric="nats_per_token_vs_lm")
    to_control = value(tables[0], **knn, metric="nats_per_token_vs_control")
    control = select(tables[0], **names, method="control", setting="")
    control_to_lm = value(control, metric="nats_per_token_vs_lm")

    assert to_lm == pytest.approx(to_control + control_to_lm, rel=1e-9)
    assert control["model"].unique().tolist() == ["longer"]


@pytest.mark.parametrize("family", ["shape", "fact told"])
def test_the_gains_of_classes_that_part_the_tokens_add_up_to_the_whole(tables, family):
    names = {"seed": "0", "method": "knn_lm", "metric": "nats_per_token_vs_lm"}
    rows = select(tables[0], **names)
    parts = rows[rows["setting"].str.contains(f"exact/tuned/{family}: |exact/tuned/fact: none")]
    if family == "shape":
        parts = parts[~parts["setting"].str.contains("fact")]

    whole = select(rows, setting="exact/tuned")
    assert parts["n"].sum() == whole["n"].item()
    total = (parts["value"] * parts["n"]).sum()
    assert total == pytest.approx(whole["value"].item() * whole["n"].item(), rel=1e-9)


def test_facts_are_told_apart_by_whether_train_tells_them(tables):
    names = {"seed": "0", "method": "control", "metric": "nats_per_token_vs_lm"}

    for kind in ("fact kind: name, told", "fact kind: name, not told"):
        assert select(tables[0], **names, setting=kind)["n"].item() == N_DOCUMENTS // 2
    shares = select(tables[0], metric="facts_told_in_train")
    assert shares["value"].tolist() == [0.5, 0.5]


def test_references_cover_whole_documents(tables):
    names = {"method": "reference", "metric": "perplexity_per_token"}

    row = select(tables[0], **names, setting="has_read_train/whole documents")

    assert row["n"].item() == N_DOCUMENTS * (LENGTH - 1)
    assert row["value"].item() == pytest.approx(np.exp(8.0 / (LENGTH - 1)), rel=1e-9)


def test_hits_grow_with_k_and_recall_is_that_of_the_search(tables):
    names = {"seed": "1", "setting": "ivfpq"}

    hits = [value(tables[0], **names, metric=f"hits_at_{k}") for k in (1, 2, 8)]

    assert 0 < hits[0] < hits[1] < hits[2] <= 1
    assert value(tables[0], **names, split="test", metric="recall") == 0.75


def test_counts_say_what_the_numbers_rest_on(tables):
    counts = {
        metric: value(tables[0], metric=metric)
        for metric in ("queries", "documents", "lm_seeds", "datastore_entries")
    }

    assert counts == {
        "queries": N_DOCUMENTS * (LENGTH - 1),
        "documents": N_DOCUMENTS,
        "lm_seeds": len(SEEDS),
        "datastore_entries": N_DOCUMENTS * LENGTH - 1,
    }


def test_seeds_are_summed_up_with_an_interval_over_seeds(tables):
    names = {"method": "lm", "metric": "perplexity_per_token"}

    mean = select(tables[0], **names, seed="all")

    single = [value(tables[0], **names, seed=seed) for seed in ("0", "1")]
    assert mean["value"].item() == pytest.approx(np.mean(single), rel=1e-12)
    assert mean["ci_low"].item() < mean["value"].item() < mean["ci_high"].item()
    assert mean["n"].item() == 2


def test_one_seed_of_a_natural_corpus_has_no_rows_over_seeds_of_facts_or_of_readers(tmp_path):
    table, _ = evaluate_knn_perplexity(**write_inputs(tmp_path, seeds=(3,), generated=False))

    assert set(table["seed"]) == {"3", ""}
    assert set(table["method"]) == {"lm", "control", "knn_lm", ""}
    assert not table["setting"].str.contains("fact").any()


def test_curves_pass_through_the_tuned_point_which_is_their_lowest(tables):
    curves = select(tables[1], method="knn_lm", seed="0")
    tuned = select(curves, setting="exact/tuned").iloc[0]

    for varied in ("k", "temperature", "lmbda"):
        curve = select(curves, setting=f"exact/over {varied}")
        others = [name for name in ("k", "temperature", "lmbda") if name != varied]
        assert curve["value"].min() == tuned["value"]
        assert (curve[others] == tuned[others]).all(axis=None)
        assert curve[varied].is_monotonic_increasing


def test_levels_of_validation_have_the_intervals_of_resampled_documents(tables, tmp_path):
    curves = select(tables[1], seed="0")
    lm = load_queries(write_inputs(tmp_path, seeds=SEEDS, generated=True)["queries"][0])
    document = np.unique(lm.documents, return_inverse=True)[1]
    nll = np.bincount(document, weights=-lm.lm_log_probs)
    counts = np.bincount(document)
    draws = np.random.default_rng(1).integers(len(counts), size=(4000, len(counts)))
    means = nll[draws].sum(1) / counts[draws].sum(1)
    expected = np.exp(np.quantile(means, [0.025, 0.975]))
    level = select(curves, method="lm").iloc[0]

    assert (curves["ci_low"] < curves["value"]).all()
    assert (curves["value"] < curves["ci_high"]).all()
    assert level[["ci_low", "ci_high"]].to_list() == pytest.approx(list(expected), rel=0.03)


def test_the_figure_is_drawn_from_the_curves_alone(tables, tmp_path):
    write_table(tmp_path / "grid.csv", tables[1])

    for name in ("a", "b"):
        with look():
            figure = draw_knn_perplexity(read_table(tmp_path / "grid.csv"))
            save_figure(figure, svg=tmp_path / f"{name}.svg", png=tmp_path / f"{name}.png")

    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    labels = [axes.get_xlabel() for axes in figure.axes]
    assert labels[2] == "k, number of neighbors"


def test_neighbors_of_other_queries_are_an_error(inputs):
    turned = inputs["neighbors"][::-1]

    with pytest.raises(ArtifactError, match="was made from another queries"):
        evaluate_knn_perplexity(**inputs | {"neighbors": turned})


def test_tokens_of_another_corpus_are_an_error(inputs, tmp_path):
    text, _ = write_text_and_tokens(tmp_path)
    (text / "train.txt").write_text("other\n")
    write_manifest(text, kind="text", settings={}, made_from={}, contents={})

    with pytest.raises(ArtifactError, match="was made from another text"):
        evaluate_knn_perplexity(**inputs | {"text": text})


def test_a_control_that_scored_other_tokens_is_an_error(inputs):
    swapped = inputs["control_queries"]
    swapped = [swapped[1], swapped[0], *swapped[2:]]

    with pytest.raises(ValueError, match="control to score the same tokens of validation"):
        evaluate_knn_perplexity(**inputs | {"control_queries": swapped})
