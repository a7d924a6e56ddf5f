"""What the workflow makes of a small corpus before an evaluation, written by hand."""

import json
import shutil
from itertools import product

import numpy as np
import pandas as pd

from knnlm.retrieval.sampling import Entries, evenly_spaced
from knnlm.retrieval.tuning import tune_interpolation
from knnlm.runtime.artifacts import MANIFEST, identity, save_array, write_manifest
from knnlm.runtime.making import Target
from knnlm.runtime.seeds import numpy_generator

CORPUS = "made-up"
WORDS = ["Ada", "born", "engine", "of", "the", "1815", "."]  # token ids 2, 3, ...
END_OF_DOCUMENT, NEWLINE, FIRST_WORD = 0, 1, 2
N_DOCUMENTS, N_WORDS, K = 40, 10, 8
LENGTH = N_WORDS + 2  # tokens of a document
SEEDS = (0, 1)
SPLITS = ("validation", "test")
BASELINE = {
    "datastore": "base",
    "control": {"datastore": "longer", "seeds": list(SEEDS)},
    "index": "exact",
    "indexes": ["exact", "ivfpq"],
    "grid": {
        "k": [1, 2, 8],
        "temperatures": {"low": 0.05, "high": 5.0, "count": 5},
        "lmbdas": {"low": 0.05, "high": 0.95, "count": 10},
    },
    "published": {"k": 8, "lmbda": 0.25, "temperature": 1.0},
    "bootstrap": {"samples": 200, "seed": 0},
}
SETTINGS = {
    "corpus": CORPUS,
    "lm_seeds": list(SEEDS),
    "baseline": BASELINE,
    "datastores": {name: {"model": name, "corpus": CORPUS} for name in ("base", "longer")},
}


def write_text_and_tokens(root, *, generated=True):
    """Documents of ten random words and a line end; a token is a word with the space before it."""
    text, tokens = root / f"corpora/{CORPUS}/text", root / f"corpora/{CORPUS}/tokens/own"
    text.mkdir(parents=True)
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


def write_queries(root, tokens, **names):
    """Write what an LM scored: positions whose target is no end of a document.

    Validation lacks the first of them, so that no array of one split fits the other.
    """
    model, seed, split = (names[name] for name in ("model", "seed", "split"))
    folder = root / f"queries/{model}/seed{seed}/{CORPUS}/{split}"
    stream = np.load(tokens / f"{split}.npy")
    positions = np.flatnonzero(stream[1:] != END_OF_DOCUMENT).astype(np.int64)
    positions = positions[split == "validation" :]
    low = {"base": 0.1, "longer": 0.3}.get(model, 0.2)
    probs = numpy_generator(int(seed), model, split).uniform(low, 0.6, size=len(positions))
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
    write_manifest(
        folder,
        kind="queries",
        names=names | {"corpus": CORPUS},
        settings={"split": split},
        made_from={"tokens": identity(tokens, kind="tokens"), "model": f"{model} {seed}"},
        contents={"queries": len(positions), "sites": []},
    )
    return folder


def write_neighbors(root, queries, *, searched=None, **names):
    """Write neighbors of which the nearer ones have the target's value more often.

    Args:
        root: of all folders.
        queries: folder of the queries of the datastore's model.
        searched: how many queries have neighbors, evenly spaced; None is all.
        names: datastore, seed, index and split.
    """
    datastore, seed, index, split = (
        names[name] for name in ("datastore", "seed", "index", "split")
    )
    folder = root / f"neighbors/{datastore}/seed{seed}/{index}/{CORPUS}/{split}"
    every = np.load(queries / "targets.npy")
    targets = every[evenly_spaced(len(every), searched)]
    generator = numpy_generator(0, "{datastore}/seed{seed}/{split}".format(**names), names["index"])
    shape = (len(targets), K)
    right = generator.random(shape) < np.linspace(0.7, 0.2, K)
    other = generator.integers(1, FIRST_WORD + len(WORDS), size=shape)
    arrays = {
        "ids": generator.integers(0, 400, size=shape),
        "distances": np.sort(generator.gamma(4.0, size=shape), axis=1).astype(np.float32),
        "values": np.where(right, targets[:, None], other).astype(np.int32),
    }
    search = {"engine": index, "metric": "ip" if index.endswith("_ip") else "l2"}
    if index == "ivfpq":
        noise = generator.normal(size=shape).astype(np.float32)
        arrays["rough"] = np.abs(arrays["distances"] + noise)
        search["rescore"] = True
    folder.mkdir(parents=True)
    np.savez(folder / "block-00000.npz", **arrays)
    counts = {"n_queries": len(targets), "of_queries": len(every), "block_queries": len(targets)}
    entries = {"entries": Entries(N_DOCUMENTS * LENGTH - 1).described()}
    write_manifest(
        folder,
        kind="neighbors",
        names=names | {"corpus": CORPUS},
        settings={},
        made_from={"queries": identity(queries, kind="queries")},
        contents=counts
        | entries
        | {"k": K, "recall": 0.75, "recall_queries": 16, "search": search},
    )
    return folder


def write_masks(root, inputs, shares, *, searched):
    """Write neighbors in shares of the datastore base, of the first LM seed, from a run's inputs.

    A target has neighbors with its value more often in a larger share; approximate distances are
    noisy, and half of the approximate neighbors of share 0.1 are missing.
    """
    folder = root / "masks/seed0"
    folder.mkdir(parents=True)
    made_from = {}
    for split in SPLITS:
        (queries,) = (f for f in inputs["queries"] if {"base", "seed0", split} <= {*f.parts})
        made_from[f"queries_{split}"] = identity(queries, kind="queries")
        every = np.load(queries / "targets.npy")
        n = len(evenly_spaced(len(every), searched))
        for share, mask in product((*shares, "1.0"), ("real", "approximate", "half")):
            generator = numpy_generator(7, split, share, mask)
            distances = np.sort(generator.gamma(4.0, size=(n, K)), axis=1).astype(np.float32)
            arrays = {"matches": generator.random((n, K)) < 0.1 + 0.5 * float(share)}
            if mask == "approximate":
                noise = generator.normal(size=(n, K)).astype(np.float32)
                arrays["rough"] = np.abs(distances + noise)
                if share == "0.1":
                    distances[:, K // 2 :] = arrays["rough"][:, K // 2 :] = np.inf
                    arrays["matches"][:, K // 2 :] = False
            np.savez(folder / f"{share}-{mask}-{split}.npz", distances=distances, **arrays)
    write_manifest(
        folder,
        kind="masks",
        names={"seed": "0"},
        settings={},
        made_from=made_from,
        contents={"queries": {}},
    )
    return folder


def write_run(
    root,
    *,
    seeds=SEEDS,
    generated=True,
    models=("base", "longer"),
    datastores=("base", "longer"),
    indexes=("exact", "ivfpq"),
    searched=None,
):
    """Write text, tokens, queries, neighbors and tuned points; return their paths by input."""
    text, tokens = write_text_and_tokens(root, generated=generated)
    queries = {
        (model, seed, split): write_queries(root, tokens, model=model, seed=str(seed), split=split)
        for model, seed, split in product(models, seeds, SPLITS)
    }
    inputs = {"text": [text], "tokens": [tokens], "queries": [*queries.values()]}
    inputs |= {"neighbors": [], "tuned": []}
    for datastore, seed, index in product(datastores, seeds, indexes):
        names = {"datastore": datastore, "seed": str(seed), "index": index}
        model = datastore if datastore in models else "base"
        found = {
            split: write_neighbors(
                root, queries[model, seed, split], searched=searched, split=split, **names
            )
            for split in SPLITS
        }
        point = root / f"tuned/{datastore}/seed{seed}/{index}/{CORPUS}.json"
        tune_interpolation(
            Target(point, "f", names | {"corpus": CORPUS}),
            queries=queries[model, seed, "validation"],
            neighbors=found["validation"],
            grid=BASELINE["grid"],
        )
        inputs["neighbors"] += found.values()
        inputs["tuned"].append(point)
    return inputs


def called(folder, **names):
    """Give an artifact the names of its place."""
    manifest = json.loads((folder / MANIFEST).read_text())
    parts = {name: manifest[name] for name in ("kind", "settings", "made_from", "contents")}
    write_manifest(folder, names=names, **parts)
    return folder


def of_another_seed(path, seed):
    """Copy an artifact, or a tuned point, of seed 0 to the place of a seed."""
    if not seed:
        return path
    copy = type(path)(*(f"seed{seed}" if part == "seed0" else part for part in path.parts))
    copy.parent.mkdir(parents=True, exist_ok=True)
    if path.is_dir():
        shutil.copytree(path, copy, dirs_exist_ok=True)
        names = json.loads((path / MANIFEST).read_text())["names"]
        return called(copy, **names | {"seed": str(seed)})
    tuned = json.loads(path.read_text())
    tuned["names"]["seed"] = str(seed)
    copy.write_text(json.dumps(tuned))
    return copy


def write_point(path, point, **names):
    """Write a tuned point by hand."""
    k, temperature, lmbda = point
    tuned = {"names": names, "k": k, "temperature": temperature, "lmbda": lmbda}
    tuned |= {"temperature_relative": 1.0, "mean_squared_distance": temperature, "nll": 1.0}
    tuned |= {"n_queries": 1, "place": [0, 0, 0], "places": [[0, 0, 0]], "made_from": {}}
    tuned["grid"] = {"k": [k], "temperatures": [1.0], "lmbdas": [lmbda]}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(tuned))
    return path
