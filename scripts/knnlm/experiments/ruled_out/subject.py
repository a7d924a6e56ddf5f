"""The LM whose gain from kNN is to be explained: one seed with its datastore and its queries."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from knnlm.experiments.ruled_out.component import SPLITS, Cost
from knnlm.experiments.shared.cost import flops_of_search, storage_of
from knnlm.experiments.shared.job import Inputs
from knnlm.experiments.shared.scored_run import ScoredRun
from knnlm.experiments.shared.scored_split import Retrieved, ScoredSplit
from knnlm.lm.anatomy import head_weight
from knnlm.lm.model import load_model
from knnlm.retrieval.datastore import Datastore, open_datastore
from knnlm.retrieval.encoder import available_device
from knnlm.runtime.artifacts import identity, read_manifest, require_origin
from knnlm.runtime.places import places

NUMBERS_AT_A_TIME = 1 << 22  # 32 MiB in float64: of a tile of queries by tokens or clusters


@dataclass(frozen=True)
class Subject:
    """One LM seed.

    Attributes:
        seed: of the LM.
        model, datastore: its folders.
        index: the block of the config by which its neighbors were found.
        scored: what the LM scored, by split; the same positions that were searched.
        retrieved: what was found for them, by split.
    """

    seed: int
    model: Path
    datastore: Path
    index: Mapping[str, Any]
    scored: Mapping[str, ScoredSplit]
    retrieved: Mapping[str, Retrieved]

    @cached_property
    def head(self) -> Tensor:
        """The output embeddings (V, d) of the LM, float64, on the GPU if there is one."""
        return head_weight(load_model(self.model)).detach().double().to(available_device())

    @cached_property
    def store(self) -> Datastore:
        """The open datastore."""
        return open_datastore(self.datastore)

    def hidden(self, split: str, site: str) -> NDArray[np.float32]:
        """Return the hidden states (n, d) of the scored positions at a site."""
        scored = self.scored[split]
        return np.ascontiguousarray(scored.queries.hidden(site)[scored.places])

    def retrieved_values(self, split: str) -> NDArray[np.int32]:
        """Return the values (n, k) of the neighbors of a split; -1 where one is missing.

        They are read anew each time: those of all seeds and splits would fill the memory.
        """
        return self.scored[split].neighbors(self.retrieved[split].folder).values

    def origins(self) -> dict[str, str]:
        """Return the identity of each folder by its role, with the seed.

        Raises:
            ArtifactError: if model, datastore, queries and neighbors do not belong together.
        """
        model = identity(self.model, kind="model")
        require_origin(self.datastore, kind="datastore", role="model", expected=model)
        found = {"model": model, "datastore": identity(self.datastore, kind="datastore")}
        for split in SPLITS:
            queries = self.scored[split].queries.folder
            require_origin(queries, kind="queries", role="model", expected=model)
            found[f"{split} queries"] = identity(queries, kind="queries")
            found[f"{split} neighbors"] = identity(self.retrieved[split].folder, kind="neighbors")
        return {f"{role} of seed {self.seed}": checksum for role, checksum in found.items()}

    def knn_cost(self) -> Cost:
        """Return what kNN takes: a search, and the keys and values that are searched."""
        contents = read_manifest(self.datastore, kind="datastore")["contents"]
        k = self.retrieved[SPLITS[0]].searched["k"]
        size = {"n_entries": contents["n_entries"], "dim": contents["dim"]}
        stored = storage_of(self.datastore, {})[f"keys_{contents['dtype']}_and_values"]
        return Cost(flops_of_search(self.index, **size, k=k), stored)


def subjects(inputs: Inputs, settings: Mapping[str, Any], run: ScoredRun) -> list[Subject]:
    """Return every LM seed of a run.

    Args:
        inputs: the LMs and their datastores, beside what the run has.
        settings: `indexes` has the block of the baseline's index.
        run: queries, neighbors and tuned points of both splits.
    """
    models = places(inputs["models"], kind="model", by=("model", "seed"))
    stores = places(inputs["datastores"], kind="datastore", by=("datastore", "seed"))
    name, found = run.baseline["datastore"], []
    for seed in run.seeds:
        scored = {split: run.scored(seed, split, searched_in=[name]) for split in SPLITS}
        found.append(
            Subject(
                seed=seed,
                model=models[run.model, seed],
                datastore=stores[name, seed],
                index=settings["indexes"][run.baseline["index"]],
                scored=scored,
                retrieved={split: run.retrieved(one) for split, one in scored.items()},
            )
        )
    return found


def squared_distances_to(points: Tensor, queries: NDArray[np.float32]) -> Tensor:
    """Return the squared L2 distance of queries (n, d) to points (m, d): (n, m) float64.

    |q|^2 - 2 qp + |p|^2 in float64 is exact to some 1e-13 of the norms.
    """
    rows = torch.from_numpy(queries).double().to(points.device)
    norms = (rows**2).sum(dim=1)[:, None] + (points**2).sum(dim=1)
    return torch.addmm(norms, rows, points.T, alpha=-2.0).clamp_(min=0.0)
