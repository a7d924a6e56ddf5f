"""Whether retrieval from its own training data helps the LM.

Chiang et al. (2024), Table 1, and Khandelwal et al. (2020), Table 1: perplexity of the LM and of
the kNN-LM on test, with k, temperature and lmbda tuned on validation, and at the published
values. Beside them the control: the same LM trained longer, without retrieval.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from knnlm.evidence.intervals import DocumentBootstrap
from knnlm.evidence.metrics import hits_at_k
from knnlm.evidence.references import reference_rows, told_rows
from knnlm.evidence.scored_text import Row, ScoredText
from knnlm.evidence.tables import means_over_seeds, tidy
from knnlm.evidence.token_classes import (
    count_words,
    fact_masks,
    read_text,
    word_masks,
    words_of_tokens,
)
from knnlm.experiments.knn_perplexity.curves import COORDINATES, Validation
from knnlm.lm.scoring import Queries, load_queries
from knnlm.retrieval.neighbors import Neighbors, load_neighbors
from knnlm.retrieval.tuning import Point, Tuning, nll_at, tune
from knnlm.runtime.artifacts import identity, read_manifest, require_origin
from knnlm.runtime.logs import LOGGER
from knnlm.runtime.seeds import numpy_generator
from knnlm.text.tokens import load_tokens

EXPERIMENT = "knn_perplexity"
SPLITS = ("validation", "test")


def evaluate_knn_perplexity(
    *,
    corpus: str,
    model: str,
    seeds: Sequence[int],
    settings: Mapping[str, Any],
    text: Path,
    tokens: Path,
    queries: Sequence[Path],
    control_queries: Sequence[Path],
    neighbors: Sequence[Path],
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the table of the experiment, and the curves over lmbda, temperature and k.

    Args:
        corpus: its name.
        model: name of the LM whose hidden states are the keys.
        seeds: the LM seeds.
        settings: the block `knn_perplexity` of the config.
        text: the text artifact.
        tokens: the tokens artifact.
        queries: scored by `model`, for each seed validation and test.
        control_queries: the same, scored by the control.
        neighbors: for each seed, for each of settings["indexes"], validation and test.

    Returns:
        Tidy tables. Curves are perplexities on validation, with the columns k, temperature
        (relative to the mean squared distance) and lmbda; `setting` says along which of them a
        row lies, or that it is the tuned point.

    Raises:
        ArtifactError: if folders belong to different corpora, models or seeds.
        ValueError: if the control scored other positions.
    """
    _require_one_corpus(text, tokens, [*queries, *control_queries])
    scored = dict(zip(product(seeds, SPLITS), queries, strict=True))
    controls = dict(zip(product(seeds, SPLITS), control_queries, strict=True))
    found = dict(zip(product(seeds, settings["indexes"], SPLITS), neighbors, strict=True))
    test = load_queries(scored[seeds[0], "test"])
    shared, classes = _shared(test, settings["bootstrap"]), _classes(text, tokens, test)
    rows, curves = [], []
    for seed in seeds:
        run = Run(
            names={"experiment": EXPERIMENT, "corpus": corpus, "model": model, "seed": seed},
            settings=settings,
            lm={split: load_queries(scored[seed, split]) for split in SPLITS},
            control={split: load_queries(controls[seed, split]) for split in SPLITS},
            shared=shared,
            classes=classes,
        )
        run.require_same_positions()
        rows += run.lm_rows()
        validation = Validation.of(run.lm["validation"], settings["bootstrap"])
        curves += run.levels(validation)
        for index in settings["indexes"]:
            LOGGER.info("seed %s, index %s: tuning on validation", seed, index)
            folders = {split: found[seed, index, split] for split in SPLITS}
            for split in SPLITS:
                origin = identity(scored[seed, split], kind="queries")
                require_origin(folders[split], kind="neighbors", role="queries", expected=origin)
            on_validation = load_neighbors(folders["validation"])
            tuning = run.tune(on_validation)
            rows += run.index_rows(index, tuning, folders["test"])
            if index == settings["index"]:
                names = run.knn_names("validation", "")
                curves += validation.curves(names, index, tuning, on_validation)
    names = {"experiment": EXPERIMENT, "corpus": corpus, "split": "test"}
    rows += reference_rows(names, text, tokens, bootstrap=settings["bootstrap"])
    rows += told_rows(names, text)
    rows += _counts(names, test, seeds, load_tokens(tokens, "train").n_tokens - 1)
    table = tidy(rows)
    table = pd.concat([table, means_over_seeds(table)], ignore_index=True)
    return table, tidy(curves, coordinates=COORDINATES)


@dataclass(frozen=True)
class Run:
    """One LM seed: its queries and the control's, and what all methods share on test."""

    names: Mapping[str, Any]
    settings: Mapping[str, Any]
    lm: Mapping[str, Queries]
    control: Mapping[str, Queries]
    shared: ScoredText
    classes: Mapping[str, NDArray[np.bool_]]

    @property
    def lm_names(self) -> dict[str, Any]:
        """The names of the LM's rows."""
        return {**self.names, "method": "lm"}

    @property
    def control_names(self) -> dict[str, Any]:
        """The names of the control's rows."""
        return {**self.names, "model": self.settings["control"], "method": "control"}

    def require_same_positions(self) -> None:
        """Check that the control scored the same tokens, so that differences are paired."""
        for split, field in product(SPLITS, ("positions", "targets")):
            one, other = (getattr(by[split], field) for by in (self.lm, self.control))
            if not np.array_equal(one, other):
                raise ValueError(
                    f"expected the control to score the same tokens of {split} as the LM; "
                    "remove log_probs below results and run the same snakemake command again"
                )

    def lm_rows(self) -> list[Row]:
        """Return the rows of the LM and of the control on test."""
        lm_nll, control_nll = -self.lm["test"].lm_log_probs, -self.control["test"].lm_log_probs
        lm = self.lm_names | {"split": "test"}
        control = self.control_names | {"split": "test"}
        return [
            *self.shared.perplexities(lm, lm_nll),
            *self.shared.perplexities(control, control_nll),
            *self.shared.differences(control, control_nll, lm_nll, against="lm"),
            *self.class_rows(control, control_nll - lm_nll),
        ]

    def tune(self, found: Neighbors) -> Tuning:
        """Score the neighbors that an index found for validation at every point of the grid."""
        lm = self.lm["validation"]
        return tune(
            found.distances,
            found.values,
            lm.targets,
            lm.lm_log_probs,
            grid=self.settings["grid"],
        )

    def levels(self, validation: Validation) -> list[Row]:
        """Return perplexity of the LM and the control on validation, for the curves."""
        names = {"lm": self.lm_names, "control": self.control_names}
        return [
            validation.level(names[method], -scored["validation"].lm_log_probs)
            for method, scored in (("lm", self.lm), ("control", self.control))
        ]

    def index_rows(self, index: str, tuning: Tuning, folder: Path) -> list[Row]:
        """Return how one index was tuned on validation, and its rows on test.

        Args:
            index: its name.
            tuning: its grid on validation.
            folder: of the neighbors that it found for test.
        """
        found, lm = load_neighbors(folder), self.lm["test"]
        lm_nll, control_nll = -lm.lm_log_probs, -self.control["test"].lm_log_probs
        rows = [*self.tuned_rows(index, tuning), self.recall_row(index, folder)]
        for name, point in self.points(tuning).items():
            nll = nll_at(point, found.distances, found.values, lm.targets, lm.lm_log_probs)
            names = self.knn_names("test", f"{index}/{name}")
            rows += self.shared.perplexities(names, nll)
            rows += self.shared.differences(names, nll, lm_nll, against="lm")
            rows += self.shared.differences(names, nll, control_nll, against="control")
            if name == "tuned" and index == self.settings["index"]:
                rows += self.class_rows(names, nll - lm_nll)
        for k in self.settings["grid"]["k"]:
            hits = hits_at_k(found.values, lm.targets, k=k)
            rows.append(self.shared.share(self.knn_names("test", index), f"hits_at_{k}", hits))
        return rows

    def points(self, tuning: Tuning) -> dict[str, Point]:
        """Return the settings that are reported on test, by name."""
        published = Point(**self.settings["published"])
        warmed = published._replace(temperature=tuning.point.temperature)
        return {
            "tuned": tuning.point,
            "published": published,
            "published_at_tuned_temperature": warmed,
        }

    def knn_names(self, split: str, setting: str) -> dict[str, Any]:
        """Return the names of a row of the kNN-LM."""
        return {**self.names, "split": split, "method": "knn_lm", "setting": setting}

    def class_rows(self, names: Mapping[str, Any], difference: NDArray[np.float64]) -> list[Row]:
        """Return the mean change against the LM in each class of target tokens."""
        prefix = f"{names['setting']}/" if "setting" in names else ""
        return [
            self.shared.mean_difference(
                {**names, "setting": prefix + name}, difference, against="lm", mask=mask
            )
            for name, mask in self.classes.items()
        ]

    def tuned_rows(self, index: str, tuning: Tuning) -> list[Row]:
        """Return the settings that validation chose."""
        n = len(self.lm["validation"].targets)
        chosen = {
            ("k", "neighbors"): tuning.point.k,
            ("lmbda", "weight on kNN"): tuning.point.lmbda,
            ("temperature", "squared distance"): tuning.point.temperature,
            ("temperature_relative", "mean squared distance"): tuning.temperatures[tuning.best[1]],
            ("mean_squared_distance", "squared distance"): tuning.distance,
        }
        names = self.knn_names("validation", f"{index}/tuned")
        return [
            {**names, "metric": metric, "value": value, "n": n, "unit": unit}
            for (metric, unit), value in chosen.items()
        ]

    def recall_row(self, index: str, folder: Path) -> Row:
        """Return the share of the true nearest neighbors that an index found, on a sample."""
        searched = read_manifest(folder, kind="neighbors")["contents"]
        n = searched["recall_queries"]
        measured = {"metric": "recall", "value": searched["recall"], "n": n, "unit": "share"}
        return self.knn_names("test", index) | measured


def _require_one_corpus(text: Path, tokens: Path, queries: Sequence[Path]) -> None:
    origin = identity(text, kind="text")
    require_origin(tokens, kind="tokens", role="text", expected=origin)
    origin = identity(tokens, kind="tokens")
    for folder in queries:
        require_origin(folder, kind="queries", role="tokens", expected=origin)


def _shared(test: Queries, bootstrap: Mapping[str, int]) -> ScoredText:
    """Return what every method shares on test: the resamples are the same for all seeds."""
    generator = numpy_generator(bootstrap["seed"], "bootstrap", "documents")
    resampled = DocumentBootstrap(test.documents, samples=bootstrap["samples"], generator=generator)
    return ScoredText(words=test.words, lines=test.lines, bootstrap=resampled)


def _classes(text: Path, tokens: Path, test: Queries) -> dict[str, NDArray[np.bool_]]:
    """Return the classes of the target tokens of test; by fact where facts are labeled."""
    stream = load_tokens(tokens, "test")
    written = read_text(text / "test.txt")
    edges = np.append(stream.starts, len(written))
    targets = np.asarray(test.positions) + 1
    located = words_of_tokens(written, edges[targets], edges[targets + 1])
    masks = word_masks(located.words, count_words(text / "train.txt"))
    facts = text / "test.facts.parquet"
    if facts.is_file():
        masks |= fact_masks(located.characters, pd.read_parquet(facts))
    return masks


def _counts(
    names: Mapping[str, Any], test: Queries, seeds: Sequence[int], entries: int
) -> list[Row]:
    """Return how much of everything the numbers rest on."""
    counts = {
        "queries": len(test.targets),
        "documents": len(np.unique(test.documents)),
        "lm_seeds": len(seeds),
        "datastore_entries": entries,
    }
    return [
        {**names, "metric": metric, "value": count, "n": count, "unit": "count"}
        for metric, count in counts.items()
    ]
