"""What output embeddings that are trained from a datastore recover of the gain that it brings.

Xu et al. (2023), Table 2 and Figure 2: embeddings of n vectors a word learn from att (the input of
the last FFN) or ffn (the input of the output layer) what the datastore stores; alone, mixed with
the LM, and as an oracle that takes the better of both for each token.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from knnlm.evidence.metrics import share_of_gap
from knnlm.evidence.scored_text import Row
from knnlm.experiments.shared.job import Inputs
from knnlm.experiments.shared.scored_run import ScoredRun, table_of
from knnlm.experiments.shared.scored_split import KNN_LM, ScoredSplit
from knnlm.experiments.trained_embeddings.sizes import FIRST, Size
from knnlm.experiments.trained_embeddings.stored_embeddings import KIND, load_embeddings
from knnlm.retrieval.interpolation import mix_log_probs
from knnlm.retrieval.mixture_weight import best_lmbda
from knnlm.retrieval.output_embeddings import embeddings_log_probs
from knnlm.retrieval.tuning import lmbdas_of
from knnlm.runtime.artifacts import identity
from knnlm.runtime.logs import LOGGER
from knnlm.runtime.places import places

EXPERIMENT, EMBEDDINGS = "trained_embeddings", "embeddings"
ALONE, INTERPOLATED, ORACLE = "alone", "interpolated", "oracle"
SPLITS = ("validation", "test")

Nll = NDArray[np.float64]  # (n,), nats, of the targets of test


class Trained(NamedTuple):
    """What embeddings make of test: the weight that validation chose, and the nll by way."""

    lmbda: float
    nlls: Mapping[str, Nll]


def evaluate(inputs: Inputs, settings: Mapping[str, Any]) -> dict[str, pd.DataFrame]:
    """Return the table of the experiment: on test, every lmbda tuned on validation.

    Args:
        inputs: queries, neighbors and tuned points of both datastores; datastores and embeddings.
        settings: corpus, lm_seeds (of which the first is used), baseline, datastores and
            trained_embeddings.

    Raises:
        ArtifactError: if folders belong to different datastores or seeds.
    """
    run = ScoredRun.of(EXPERIMENT, inputs, settings)
    seed, by = run.seeds[0], ("datastore", "seed")
    stores = {"att": run.baseline["datastore"], "ffn": settings[EXPERIMENT]["ffn_datastore"]}
    folders = places(inputs["embeddings"], kind=KIND, by=by)
    datastores = places(inputs["datastores"], kind="datastore", by=by)
    scored = {split: run.scored(seed, split) for split in SPLITS}
    compared = Compared(scored, lmbdas_of(run.baseline["grid"]))
    for site, store in stores.items():
        origin = identity(datastores[store, seed], kind="datastore")
        compared.add(site, folders[store, seed], key=run.site(store), datastore=origin)
    rows = scored["test"].rows("lm", "", scored["test"].nll, against={})
    for site, store in stores.items():  # of the ffn datastore fewer positions may be searched
        found, nlls = knn_rows(run, site, store, seed)
        rows += found
        if site == "att":
            knn = nlls
    return {"table": table_of(rows + compared.rows(knn))}


def knn_rows(
    run: ScoredRun, site: str, datastore: str, seed: int
) -> tuple[list[Row], dict[str, Nll]]:
    """Return the kNN-LM of a datastore mixed and as an oracle; alone it has no perplexity.

    A target that no neighbor has is infinitely unlikely without the LM: the share of such targets
    stands in its place.
    """
    scored = run.scored(seed, searched_in=[datastore])
    retrieved = run.retrieved(scored, datastore=datastore)
    alone = -retrieved.knn_log_probs
    alone = np.where(np.isnan(alone), np.inf, alone)
    nlls = {INTERPOLATED: retrieved.nll, ORACLE: np.minimum(scored.nll, alone)}
    rows = retrieved.tuned_rows(f"{site}/{INTERPOLATED}")
    for way, nll in nlls.items():
        rows += scored.rows(KNN_LM, f"{site}/{way}", nll, against={"lm": scored.nll})
    names = scored.row_names(KNN_LM, f"{site}/{ALONE}")
    rows.append(scored.text.share(names, "share_of_targets_without_neighbor", np.isinf(alone)))
    return rows, nlls


@dataclass(frozen=True)
class Compared:
    """Embeddings of all sites and sizes on the same tokens.

    Attributes:
        scored: what the LM scored, by split.
        lmbdas: the grid, ascending.
        trained: by site and size.
    """

    scored: Mapping[str, ScoredSplit]
    lmbdas: NDArray[np.float64]
    trained: dict[tuple[str, str], Trained] = field(default_factory=dict)

    def add(self, site: str, folder: Path, *, key: str, datastore: str) -> None:
        """Score the embeddings of a folder.

        Args:
            site: att or ffn.
            folder: the artifact.
            key: which hidden state the keys are.
            datastore: identity of the one that they were trained on.
        """
        validation, test = (self.scored[split] for split in SPLITS)
        for name, module in load_embeddings(folder, datastore=datastore):
            LOGGER.info("%s: scoring %s", folder, name)
            own = {
                split: embeddings_log_probs(module, scored.queries.hidden(key), scored.targets)
                for split, scored in self.scored.items()
            }
            lmbda = best_lmbda(-validation.nll, own["validation"], self.lmbdas)
            nlls = {
                ALONE: -own["test"],
                INTERPOLATED: -mix_log_probs(-test.nll, own["test"], lmbda),
                ORACLE: np.minimum(test.nll, -own["test"]),
            }
            self.trained[site, name] = Trained(lmbda, nlls)

    def rows(self, knn: Mapping[str, Nll]) -> list[Row]:
        """Return every size on test, compared with LM, kNN-LM of att, and other embeddings."""
        test, rows = self.scored["test"], []
        for (site, name), (lmbda, nlls) in self.trained.items():
            for way, nll in nlls.items():
                against = {"lm": test.nll} | ({KNN_LM: knn[way]} if way in knn else {})
                against |= self._rivals(site, name, way)
                rows += test.rows(EMBEDDINGS, f"{site}/{name}/{way}", nll, against=against)
            mixed = test.row_names(EMBEDDINGS, f"{site}/{name}/{INTERPOLATED}")
            rows.append(self._share(mixed, nlls[INTERPOLATED], knn[INTERPOLATED]))
            chosen = {"metric": "lmbda", "value": lmbda, "unit": "weight on the embeddings"}
            n = len(self.scored["validation"].places)
            rows.append(mixed | {"split": "validation", "n": n} | chosen)
        return rows

    def _rivals(self, site: str, name: str, way: str) -> dict[str, Nll]:
        """Return one vector a word, as many dealt out evenly, and the same size from ffn."""
        size = Size.named(name)
        rivals = {"one_vector": (site, FIRST)} if name != FIRST else {}
        rivals |= {"even": (site, str(size.vectors))} if size.by else {}
        rivals |= {"ffn": ("ffn", name)} if site == "att" else {}
        return {
            rival: self.trained[place].nlls[way]
            for rival, place in rivals.items()
            if place in self.trained
        }

    def _share(self, names: Mapping[str, Any], nll: Nll, knn: Nll) -> Row:
        """Return the share of the kNN-LM's gain, of att, that embeddings recover, in percent."""
        test = self.scored["test"]
        nlls = (test.nll, knn, nll)
        low, high = test.text.bootstrap.of_means(share_of_gap, *nlls)
        value = float(share_of_gap(*(one.mean() for one in nlls)))
        ends = {"value": 100 * value, "ci_low": 100 * low, "ci_high": 100 * high}
        return {**names, "metric": "share_of_knn_gain", **ends, "n": len(nll), "unit": "percent"}
