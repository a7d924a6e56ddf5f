"""The frame of an evaluation of LM seeds, and of kNN-LMs at their tuned points.

An experiment asks a `ScoredRun` for what an LM scored, mixes neighbors in, and names the methods:

    run = ScoredRun.of("my_experiment", inputs, settings)
    for seed in run.seeds:
        scored = run.scored(seed)
        mixed = run.retrieved(scored, index="ivfpq")
        rows += scored.rows("knn_lm", "ivfpq/tuned", mixed.nll, against={"lm": scored.nll})
    return {"table": table_of(rows)}
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from knnlm.evidence.scored_text import Row
from knnlm.evidence.tables import means_over_seeds, tidy
from knnlm.experiments.shared.job import Inputs
from knnlm.experiments.shared.scored_split import Retrieved, ScoredSplit
from knnlm.lm.scoring import load_queries
from knnlm.retrieval.sampling import evenly_spaced
from knnlm.retrieval.tuned_points import tuned_points
from knnlm.retrieval.tuning import Tuned
from knnlm.runtime.places import Places, places


@dataclass(frozen=True)
class ScoredRun:
    """The folders of an evaluation by what their manifests say they are.

    Attributes:
        names: of its rows: experiment and corpus.
        seeds: of the LM.
        baseline, datastores: the blocks of the config.
        queries: by model, seed and split.
        neighbors: by datastore, seed, index and split.
        tuned: by datastore, seed, index and corpus.
    """

    names: Mapping[str, Any]
    seeds: Sequence[int]
    baseline: Mapping[str, Any]
    datastores: Mapping[str, Mapping[str, Any]]
    queries: Places
    neighbors: Places
    tuned: Mapping[tuple[str | int, ...], Tuned]

    @classmethod
    def of(cls, experiment: str, inputs: Inputs, settings: Mapping[str, Any]) -> "ScoredRun":
        """Tell the folders of a rule apart.

        Args:
            experiment: its name.
            inputs: queries, neighbors and tuned, all of one corpus.
            settings: corpus, lm_seeds, baseline and datastores.

        Raises:
            ArtifactError: naming the folder whose manifest does not say what its path claims.
        """
        retrieval = ("datastore", "seed", "index", "split")
        return cls(
            names={"experiment": experiment, "corpus": settings["corpus"]},
            seeds=settings["lm_seeds"],
            baseline=settings["baseline"],
            datastores=settings["datastores"],
            queries=places(inputs["queries"], kind="queries", by=("model", "seed", "split")),
            neighbors=places(inputs["neighbors"], kind="neighbors", by=retrieval),
            tuned=tuned_points(inputs["tuned"]),
        )

    @property
    def model(self) -> str:
        """Name of the baseline's LM, whose hidden states are the keys of its datastore."""
        return self.datastores[self.baseline["datastore"]]["model"]

    def site(self, datastore: str) -> str:
        """Return which hidden state is the key of a datastore."""
        return self.datastores[datastore]["site"]

    def scored(
        self,
        seed: int,
        split: str = "test",
        *,
        model: str | None = None,
        positions: int | None = None,
        searched_in: Iterable[str] = (),
    ) -> ScoredSplit:
        """Return what an LM scored.

        Args:
            seed: of the LM.
            split: validation or test.
            model: its name; None is the baseline's.
            positions: how many, evenly spaced over all; None takes all.
            searched_in: datastores in all of which they were searched, which may be fewer.
        """
        model = model or self.model
        queries = load_queries(self.queries[model, seed, split])
        names = {**self.names, "model": model, "seed": seed, "split": split}
        counts = [positions, *(self.datastores[name]["queries"] for name in searched_in)]
        count = min((count for count in counts if count), default=None)
        chosen = evenly_spaced(queries.n_queries, count)
        return ScoredSplit(names, queries, chosen, self.baseline["bootstrap"])

    def retrieved(
        self, scored: ScoredSplit, *, datastore: str | None = None, index: str | None = None
    ) -> Retrieved:
        """Return what was found for scored positions, and how it was tuned on validation.

        Args:
            scored: the positions.
            datastore: where it was found; None is the baseline's.
            index: by which; None is the baseline's.
        """
        datastore = datastore or self.baseline["datastore"]
        place = (datastore, scored.names["seed"], index or self.baseline["index"])
        return Retrieved(
            scored,
            self.neighbors[*place, scored.names["split"]],
            self.tuned[*place, self.names["corpus"]],
        )


def table_of(rows: Iterable[Row]) -> pd.DataFrame:
    """Return a tidy table, with the means over seeds behind it if there are several."""
    table = tidy(rows)
    return pd.concat([table, means_over_seeds(table)], ignore_index=True)
