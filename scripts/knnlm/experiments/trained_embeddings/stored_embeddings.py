"""Trained output embeddings as an artifact: one file a size, made one after the other."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from knnlm.experiments.trained_embeddings.sizes import FIRST, FREQUENCY, Size
from knnlm.lm.anatomy import head_weight
from knnlm.lm.model import load_model
from knnlm.lm.training import STATE
from knnlm.retrieval.datastore import Shard, open_datastore
from knnlm.retrieval.output_embeddings import (
    OutputEmbeddings,
    embeddings_log_probs,
    embeddings_loss,
    rows_in_proportion,
)
from knnlm.retrieval.pair_training import train_on_shuffled
from knnlm.retrieval.pairs import ShuffledPairs
from knnlm.runtime.artifacts import (
    ArtifactError,
    atomic_path,
    identity,
    read_manifest,
    rebuild_hint,
    require_origin,
)
from knnlm.runtime.making import Target, each_missing, making

KIND = "output_embeddings"


def train_embeddings(
    target: Target,
    *,
    datastore: Path,
    model: Path,
    sizes: Sequence[str],
    settings: Mapping[str, Any],
) -> None:
    """Train embeddings of some sizes on the shards of a datastore and publish them.

    Args:
        target: one file a size; its seed is that of the rows and of the order of the pairs.
        datastore: the pairs.
        model: folder of the frozen LM whose hidden states the keys are.
        sizes: their names, see `sizes`; the first has one vector a word.
        settings: see `train_on_shuffled`, and buffer_mib.

    Raises:
        ArtifactError: if the datastore was made from another model.
        ValueError: see `train_on_shuffled`.
    """
    made_from = {"model": identity(model, kind="model")}
    require_origin(datastore, kind="datastore", role="model", expected=made_from["model"])
    made_from["datastore"] = identity(datastore, kind="datastore")
    store, seed = open_datastore(datastore), target.seed
    vocabulary = len(head_weight(load_model(model)))
    pairs = ShuffledPairs(store.shards, buffer_mib=settings["buffer_mib"], seed=seed)
    with making(
        target,
        kind=KIND,
        made_from=made_from,
        settings={"training": dict(settings), "seed": seed},
    ) as made:
        files = {name: made.folder / f"{name}.safetensors" for name in sizes}
        for name in each_missing(files, label=KIND, name="sizes"):
            counts = _rows(Size.named(name), vocabulary, store.shards, made.folder)
            module = OutputEmbeddings(counts, dim=store.dim, seed=seed)
            partial = made.folder / name
            train_on_shuffled(
                module,
                pairs,
                loss=embeddings_loss,
                vocabulary_size=vocabulary,
                settings=settings,
                seed=seed,
                partial=partial,
            )
            with atomic_path(files[name]) as temporary:
                save_file(module.cpu().state_dict(), temporary)
            (partial / STATE).unlink(missing_ok=True)
            partial.rmdir()
        made.contents |= {"sizes": list(sizes), "vocabulary_size": vocabulary, "dim": store.dim}


def _rows(size: Size, vocabulary: int, shards: Sequence[Shard], folder: Path) -> NDArray[np.int64]:
    """Return the rows of each word: as many for all, or by how often it comes or what it costs."""
    if size.by is None:
        return np.full(vocabulary, size.vectors)
    shares = np.zeros(vocabulary)
    first = None if size.by == FREQUENCY else load_embeddings_file(folder / f"{FIRST}.safetensors")
    for shard in shards:
        values = np.asarray(shard.datastore_values, np.int64)
        nats = None if first is None else -embeddings_log_probs(first, shard.datastore_keys, values)
        shares += np.bincount(values, weights=nats, minlength=vocabulary)
    return rows_in_proportion(shares, vectors=size.vectors)


def load_embeddings(folder: Path, *, datastore: str) -> Iterator[tuple[str, OutputEmbeddings]]:
    """Yield the embeddings of every size by name, on the CPU, one in memory at a time.

    Args:
        folder: the artifact.
        datastore: the identity of the one that they must have been trained on.

    Raises:
        ArtifactError: if they were trained on another datastore, or a file cannot be read.
    """
    require_origin(folder, kind=KIND, role="datastore", expected=datastore)
    for name in read_manifest(folder, kind=KIND)["contents"]["sizes"]:
        yield name, load_embeddings_file(folder / f"{name}.safetensors")


def load_embeddings_file(path: Path) -> OutputEmbeddings:
    """Return embeddings as they were stored.

    Raises:
        ArtifactError: if the file is truncated or holds something else.
    """
    try:
        stored = load_file(path)
        counts, dim = stored["counts"].numpy(), stored["weight"].shape[1]
        module = OutputEmbeddings(counts, dim=dim, seed=0)
        module.load_state_dict(stored)
    except (SafetensorError, KeyError, ValueError, RuntimeError, OSError) as error:
        raise ArtifactError(f"{path} cannot be read ({error}); {rebuild_hint(path)}") from error
    return module.eval()
