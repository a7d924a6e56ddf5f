"""What is projected, on what, and from where: the terms of Eq. 2 of Chiang et al. (2024).

Targets are the kNN-LM's distributions at sampled contexts. The paper's f is "the last linear layer
with softmax", its g the last MLP with its residual connection; its LM has no final norm, ours has
one. The maps:

    f           z -> W z                       the paper's f
    norm_and_f  z -> W norm(z)                 ours: what follows the last block
    f_g         z -> W norm(z + MLP(norm(z)))  the paper's f after g; the final norm stands between

Each map can start where it gives exactly the LM. The paper starts at enc(c). For f_g that is where
it gives the LM; f can start at the datastore's key, which is enc(c) after its layer norm.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from knnlm.experiments.softmax_bottleneck.mixture import Mixture
from knnlm.experiments.softmax_bottleneck.projection import Map
from knnlm.lm.anatomy import apply_f, apply_g, head_weight
from knnlm.lm.architecture import FFN_INPUT_BEFORE, OUTPUT_AFTER
from knnlm.lm.model import load_model
from knnlm.lm.scoring import Queries, load_queries
from knnlm.retrieval.distribution import knn_distribution
from knnlm.retrieval.neighbors import load_neighbors
from knnlm.retrieval.sampling import evenly_spaced
from knnlm.retrieval.tuning import Point
from knnlm.runtime.artifacts import identity, require_origin

F, NORM_AND_F, F_G = "f", "norm_and_f", "f_g"  # maps
FROM_LM, FROM_KEY = "from_lm", "from_key"  # starts
TUNED, PUBLISHED, PUBLISHED_TUNED_TEMPERATURE = TARGETS = (  # kNN-LMs that are projected
    "tuned",
    "published",
    "published_tuned_temperature",
)


def points_of(tuned: Point, published: Mapping[str, Any]) -> dict[str, Point]:
    """Return the k, temperature and lmbda of each kNN-LM that is projected.

    The paper projects its own kNN-LM: k 1024, lmbda 0.25. It names no temperature; 1 is that of
    the softmax as printed. As its unit changes with the width of the LM, the same k and lmbda
    stand at the tuned temperature as well.

    Args:
        tuned: chosen on validation.
        published: k, temperature and lmbda of `baseline.published`.
    """
    point = Point(**published)
    tempered = point._replace(temperature=tuned.temperature)
    return {TUNED: tuned, PUBLISHED: point, PUBLISHED_TUNED_TEMPERATURE: tempered}


class ProjectionInputs(NamedTuple):
    """The folders that projections are made from.

    Attributes:
        model: the LM that is projected on.
        queries: of test, scored by it.
        neighbors: of these queries.
        site: of the datastore's keys.
    """

    model: Path
    queries: Path
    neighbors: Path
    site: str

    @classmethod
    def of(cls, job: Any) -> "ProjectionInputs":
        """Return the folders that a Snakemake job reads."""
        folders = (Path(job.input[role]) for role in ("model", "queries", "neighbors"))
        return cls(*folders, site=job.params.site)

    def origins(self) -> dict[str, str]:
        """Return the identity of each folder by its role.

        Raises:
            ArtifactError: if they do not belong together.
        """
        origins = {
            "model": identity(self.model, kind="model"),
            "queries": identity(self.queries, kind="queries"),
            "neighbors": identity(self.neighbors, kind="neighbors"),
        }
        require_origin(self.queries, kind="queries", role="model", expected=origins["model"])
        require_origin(
            self.neighbors, kind="neighbors", role="queries", expected=origins["queries"]
        )
        return origins


@dataclass(frozen=True)
class Problem:
    """The sampled contexts of one LM.

    Attributes:
        network: the LM, its parameters fixed.
        queries: its scored positions.
        places: (n,), the sampled ones among them.
        mixture: their kNN-LM distributions.
        targets: (n,) int64, the tokens that did follow.
        site: of the datastore's keys.
    """

    network: nn.Module
    queries: Queries
    places: NDArray[np.int64]
    mixture: Mixture
    targets: Tensor
    site: str

    def states(self, site: str) -> Tensor:
        """Return the hidden states (n, d) of the sampled contexts at a site."""
        states = torch.from_numpy(np.ascontiguousarray(self.queries.hidden(site)[self.places]))
        return states.to(self.network.device)

    def map_of(self, last_layers: str) -> Map:
        """Return the map f, norm_and_f or f_g, from z (n, d) to logits (n, n_tokens)."""
        weight = head_weight(self.network)
        return {
            F: lambda z: z @ weight.T,
            NORM_AND_F: lambda z: apply_f(self.network, z),
            F_G: lambda z: apply_f(self.network, apply_g(self.network, z)),
        }[last_layers]

    def starts(self, last_layers: str) -> dict[str, Tensor]:
        """Return where z may start, (n, d) by name: where the map gives the LM, and at the key.

        Only f has a second start: enc(c) of f_g is the residual stream, where it gives the LM.
        """
        residual = self.states(FFN_INPUT_BEFORE)
        return {
            F: lambda: {FROM_LM: self.states(OUTPUT_AFTER), FROM_KEY: self.states(self.site)},
            NORM_AND_F: lambda: {FROM_LM: apply_g(self.network, residual)},
            F_G: lambda: {FROM_LM: residual},
        }[last_layers]()


def load_problem(inputs: ProjectionInputs, point: Point, *, positions: int) -> Problem:
    """Put together the kNN-LM's distributions from stored states and stored neighbors.

    Args:
        inputs: the folders.
        point: k, temperature and lmbda.
        positions: how many queries are sampled, evenly spaced in the text.

    Raises:
        ValueError: if a sampled query has no neighbor.
    """
    device = "cuda" if torch.cuda.is_available() else "cpu"
    network = load_model(inputs.model).to(device).requires_grad_(False)
    scored, found = load_queries(inputs.queries), load_neighbors(inputs.neighbors)
    places = evenly_spaced(scored.n_queries, positions)
    values, probabilities = knn_distribution(
        torch.from_numpy(found.distances[places, : point.k]),
        torch.from_numpy(found.values[places, : point.k]),
        temperature=point.temperature,
    )
    hidden = np.ascontiguousarray(scored.hidden(OUTPUT_AFTER)[places])
    mixture = Mixture(
        lm_hidden=torch.from_numpy(hidden).to(device),
        lm_head=head_weight(network),
        values=values.to(device),
        probabilities=probabilities.to(device),
        lmbda=point.lmbda,
    )
    targets = torch.from_numpy(scored.targets[places].astype(np.int64)).to(device)
    return Problem(network, scored, places, mixture, targets, inputs.site)
