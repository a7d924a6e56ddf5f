"""The numbers of one fine-tuning: likelihoods by method, family size and point of the training."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from safetensors.numpy import load_file

from knnlm.evidence.intervals import DocumentBootstrap
from knnlm.evidence.scored_text import Row
from knnlm.experiments.overspecification.names import (
    ALL,
    FINE_TUNING,
    KEPT,
    METRIC,
    MLP,
    neighbors_in_town,
    temperatures,
)
from knnlm.experiments.shared.town_tables import ratio_with_interval, villager_bootstrap
from knnlm.retrieval.interpolation import mix_log_probs
from knnlm.runtime.artifacts import identity, read_manifest, require_origin
from knnlm.text.macondo.dataset import KIND as MACONDO
from knnlm.text.macondo.dataset import read_examples
from knnlm.text.macondo.town import SPLITS

# What lmbda and temperature may be chosen on, beside the values that are fixed in the config.
CHOSEN_ON = {"validation": "chosen on held-out sentences", "test": "oracle, chosen on test"}


@dataclass(frozen=True)
class FineTuned:
    """One fine-tuning of one seed: what was scored, and the families it was scored on.

    Attributes:
        names: experiment, corpus, model and seed of its rows.
        settings: the block `overspecification` of the config.
        fine_tuning: its entry in `fine_tunings`.
        examples: a row for each child.
        town: the settings that the families were made with.
        contents: of the manifest.
        scores: for each point of the training lm_{split} (n,) and knn_{split} (n, n_temperatures).
        kept: for each kept point all that is known; what an MLP answers begins with the name of
            its method, see `mlp_method`.
    """

    names: Mapping[str, Any]
    settings: Mapping[str, Any]
    fine_tuning: Mapping[str, Any]
    examples: pd.DataFrame
    town: Mapping[str, Any]
    contents: Mapping[str, Any]
    scores: Sequence[Mapping[str, NDArray[Any]]]
    kept: Mapping[str, Mapping[str, NDArray[Any]]]

    @property
    def groups(self) -> dict[int, NDArray[np.bool_]]:
        """Masks (n,) of the examples by number of children, first `ALL`."""
        n_children = self.examples["n_children"].to_numpy()
        masks = {int(n): n_children == n for n in np.unique(n_children)}
        return {ALL: np.ones(len(n_children), dtype=bool), **masks}

    @property
    def mlps(self) -> list[str]:
        """The methods with an MLP, one for each of its settings."""
        return [mlp_method(name) for name in self.settings["mlps"]]

    def fixed(self, scores: Mapping[str, NDArray[Any]], split: str) -> dict[str, NDArray[Any]]:
        """Return the log-likelihoods of each method, with the lmbda and temperature fixed before.

        Args:
            scores: of a point; with the MLPs' answers at a kept one.
            split: of the sentences.
        """
        lm, lmbda = scores[f"lm_{split}"], self.settings["lmbda"]
        methods = {"lm": lm, "knn_lm": mix_log_probs(lm, scores[f"knn_{split}"][:, 0], lmbda)}
        answered = [method for method in self.mlps if f"{method}_{split}" in scores]
        return methods | {m: mix_log_probs(lm, scores[f"{m}_{split}"], lmbda) for m in answered}

    def rows(self) -> Iterator[Row]:
        """Yield the rows of the kept points."""
        bootstrap = villager_bootstrap(self.examples, "overspecification")
        for point in KEPT:
            for split in SPLITS:
                for n_children, mask in self.groups.items():
                    names = {**self.names, "split": split, "setting": label(point, n_children)}
                    yield from self._likelihoods(names, point, split, mask, bootstrap)
            yield from self._perplexities(point)
            yield from self._choices(point)

    def _likelihoods(
        self,
        names: Mapping[str, Any],
        point: str,
        split: str,
        mask: NDArray[np.bool_],
        bootstrap: DocumentBootstrap,
    ) -> Iterator[Row]:
        """Yield mean log-likelihoods of some families, their gains, and what is left to gain."""
        methods = self.fixed(self.kept[point], split)
        gap = -np.log(self.examples["n_children"].to_numpy()) - methods["lm"]
        for method, scores in methods.items():
            gain = scores - methods["lm"]
            numbers = {METRIC: (scores, mask, "nats")}
            if method == "lm" and split == "test":
                numbers["gap_to_theory"] = (gap, mask, "nats")
            if method != "lm":
                numbers[f"{METRIC}_vs_lm"] = (gain, mask, "nats")
                if split == "test":
                    numbers["share_of_gap_closed"] = (gain, np.where(mask, gap, 0.0), "share")
            for metric, (values, weights, unit) in numbers.items():
                row = {"method": method, "metric": metric, "n": int(mask.sum()), "unit": unit}
                inside = np.where(mask, values, 0.0)
                yield {**names, **row, **ratio_with_interval(bootstrap, inside, weights)}

    def _perplexities(self, point: str) -> Iterator[Row]:
        """Yield perplexities of test: of the children's names, and of every token."""
        found, lmbda = self.kept[point], self.settings["lmbda"]
        lm, answers = found["lm_test_tokens"], {"knn_lm": "knn"} | {m: m for m in self.mlps}
        tokens = {"lm": lm}
        for method, of in answers.items():
            tokens[method] = mix_log_probs(lm, found[f"{of}_test_tokens"], lmbda)
        scored = {"child_perplexity": self.fixed(found, "test"), "perplexity_per_token": tokens}
        for metric, methods in scored.items():
            for method, scores in methods.items():
                yield {
                    **self._named(method, label(point, ALL)),
                    "metric": metric,
                    "value": float(np.exp(-scores.mean())),
                    "n": len(scores),
                    "unit": "perplexity",
                }

    def _choices(self, point: str) -> Iterator[Row]:
        """Yield the test likelihood with lmbda and temperature chosen on some split's sentences."""
        found, grid = self.kept[point], self.settings["oracle"]["lmbdas"]
        lmbdas = np.linspace(grid["low"], grid["high"], grid["count"])
        shares = temperatures(self.settings)
        lm = float(found["lm_test"].mean())
        for split, how in CHOSEN_ON.items():
            for method, answers in ({"knn_lm": "knn"} | {m: m for m in self.mlps}).items():
                means = [
                    [self._mixed(found, answers, split, t, lmbda).mean() for lmbda in lmbdas]
                    for t in range(len(shares) if method == "knn_lm" else 1)
                ]
                t, place = np.unravel_index(np.argmax(means), np.shape(means))
                scores = self._mixed(found, answers, "test", t, lmbdas[place])
                best = {METRIC: (scores.mean(), "nats"), "lmbda": (lmbdas[place], "weight")}
                best[f"{METRIC}_vs_lm"] = (scores.mean() - lm, "nats")
                if method == "knn_lm":
                    best["temperature"] = (shares[t], "mean squared distances")
                for metric, (value, unit) in best.items():
                    row = {"metric": metric, "value": value, "n": len(scores), "unit": unit}
                    yield self._named(method, f"{label(point, ALL)}/{how}") | row

    @staticmethod
    def _mixed(
        found: Mapping[str, NDArray[Any]], answers: str, split: str, temperature: int, lmbda: float
    ) -> NDArray[np.float64]:
        """Return the log-likelihoods of a split for a place in the temperatures and a weight."""
        columns = found[f"{answers}_{split}"].reshape(len(found[f"lm_{split}"]), -1)
        return mix_log_probs(found[f"lm_{split}"], columns[:, temperature], lmbda)

    def _named(self, method: str, setting: str) -> Row:
        return {**self.names, "split": "test", "method": method, "setting": setting}

    def facts(self) -> Iterator[Row]:
        """Yield what stands behind the numbers: sizes, and settings that move them."""
        contents = self.contents
        numbers = {
            "vocabulary_size": (contents["vocabulary_size"], "tokens"),
            "names_added_to_the_vocabulary": (contents["names_added"], "names"),
            "datastore_entries": (contents["entries"], "entries"),
            "k": (
                neighbors_in_town(self.settings["k"], children=contents["examples"]),
                "neighbors",
            ),
            "training_sentences": (contents["examples"], "sentences"),
            "updates": (contents["updates"], "updates"),
            "random_positions": (int(self.fine_tuning["positions"] == "offset"), "1 is yes"),
            "learning_rate": (self.fine_tuning["optimizer"]["lr"], "highest"),
            "early_epoch": (contents["early"] / contents["per_epoch"], "epochs"),
            "best_epoch": (contents["best"] / contents["per_epoch"], "epochs"),
        }
        for metric, (value, unit) in numbers.items():
            yield {**self.names, "metric": metric, "value": value, "n": 1, "unit": unit}
        yield {
            **self.names,
            "setting": f"names from {self.town['names']['source']}",
            "metric": "child_names_added",
            "value": int(self.town["child_names"] == "added"),
            "n": 1,
            "unit": "1 is yes",
        }


def label(point: str, n_children: int) -> str:
    """Return the `setting` of a row: a kept point of the training, and the families."""
    families = "all" if n_children == ALL else f"{n_children} child{'ren' * (n_children > 1)}"
    return f"{point}/{families}"


def mlp_method(name: str) -> str:
    """Return the `method` of the LM mixed with the MLP of these settings."""
    return f"mlp_lm/{name}"


def read_fine_tuned(
    fine_tuned: Path,
    mlps: Mapping[str, Path],
    macondo: Path,
    *,
    names: Mapping[str, Any],
    settings: Mapping[str, Any],
    fine_tuning: Mapping[str, Any],
) -> FineTuned:
    """Return what was scored of a fine-tuning, from its artifacts.

    Args:
        fine_tuned: the fine-tuning.
        mlps: by the name of its settings, the MLPs in the place of its datastore.
        macondo: the town.
        names: of its rows.
        settings: the block `overspecification` of the config.
        fine_tuning: its entry in `fine_tunings`.

    Raises:
        ArtifactError: if they do not belong together.
    """
    town, origin = identity(macondo, kind=MACONDO), identity(fine_tuned, kind=FINE_TUNING)
    require_origin(fine_tuned, kind=FINE_TUNING, role="macondo", expected=town)
    kept = {point: load_file(fine_tuned / f"{point}.safetensors") for point in KEPT}
    for name, folder in mlps.items():
        require_origin(folder, kind=MLP, role="fine_tuned", expected=origin)
        for point, found in kept.items():
            answers = load_file(folder / f"{point}.safetensors")
            found |= {f"{mlp_method(name)}_{asked}": array for asked, array in answers.items()}
    return FineTuned(
        names=names,
        settings=settings,
        fine_tuning=fine_tuning,
        examples=read_examples(macondo),
        town=read_manifest(macondo, kind=MACONDO)["settings"],
        contents=read_manifest(fine_tuned, kind=FINE_TUNING)["contents"],
        scores=[load_file(path) for path in sorted((fine_tuned / "points").iterdir())],
        kept=kept,
    )
