"""Whether kNN helps because the head can never rank some tokens first: stolen probabilities.

Xu et al. (2023) found no output vector inside the convex hull of the others. Here every vector of
the vocabulary is certified to be outside or inside (`convex_hull`).
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from knnlm.evidence.scored_text import Row
from knnlm.experiments.ruled_out.convex_hull import (
    How,
    Points,
    settle_by_directions,
    settle_by_program,
)
from knnlm.experiments.shared.scored_split import ScoredSplit
from knnlm.lm.anatomy import head_weight
from knnlm.lm.model import load_model
from knnlm.retrieval.encoder import available_device
from knnlm.runtime.artifacts import atomic_path, identity, require_origin
from knnlm.runtime.making import Target, each_missing, making
from knnlm.runtime.places import places
from knnlm.runtime.seeds import derive_seed

METHOD = "stolen_probabilities"
CERTIFICATES = "hull_certificates"
AT_A_TIME = 8  # vectors that one file of programs has
WORDS = {
    How.DIRECTION: "outside_by_direction",
    How.STEPS: "outside_by_steps",
    How.PROGRAM: "outside_by_program",
    How.INSIDE: "inside_hull",
    How.UNDECIDED: "undecided",
}


def certify_output_vectors(
    target: Target, *, models: Sequence[Path], settings: Mapping[str, Any]
) -> None:
    """Certify for each output vector whether it lies in the convex hull of the others.

    First the directions of each LM, then programs for the few that are left, a file at a time: a
    killed job goes on with the next.

    Args:
        target: seed{n}/directions.npz and seed{n}/programs-{number}.npz.
        models: one LM, of one or several seeds.
        settings: `random_directions` and `steps` of the perceptron.

    Raises:
        ValueError: if the head of an LM has a bias, which asks another question.
    """
    found = places(models, kind="model", by=("seed",))
    folders = {seed: folder for (seed,), folder in found.items()}
    made_from = {_role(seed): identity(path, kind="model") for seed, path in folders.items()}
    with making(target, kind=CERTIFICATES, made_from=made_from, settings=settings) as made:
        files = {seed: made.folder / f"seed{seed}/directions.npz" for seed in folders}
        goes_on = all(file.is_file() for file in files.values())
        for seed in [] if goes_on else each_missing(files, label="directions", name="LMs"):
            _settle_by_directions(folders[seed], files[seed], settings, seed=int(seed))
        programs = {
            (seed, first): made.folder / f"seed{seed}/programs-{first // AT_A_TIME:05d}.npz"
            for seed, file in files.items()
            for first in range(0, len(_left(file)), AT_A_TIME)
        }
        known = files if goes_on else {}  # they count as done before where a killed job goes on
        for seed, first in each_missing({**known, **programs}, label="programs", name="files"):
            some = slice(first, first + AT_A_TIME)
            _settle_by_programs(folders[seed], files[seed], some, programs[seed, first])


def _settle_by_directions(
    model: Path, file: Path, settings: Mapping[str, Any], *, seed: int
) -> None:
    how, direction = settle_by_directions(
        Points.of(head_without_bias(model)),
        random=settings["random_directions"],
        steps=settings["steps"],
        seed=derive_seed(seed, "directions"),
    )
    file.parent.mkdir(exist_ok=True)
    _save(file, how=how, direction=direction)


def _settle_by_programs(model: Path, directions: Path, some: slice, file: Path) -> None:
    places, direction = _left(directions)[some], _load(directions)["direction"]
    points = Points.of(head_without_bias(model))
    how = [settle_by_program(points, int(place), direction[place]) for place in places]
    _save(file, places=places, how=np.array(how, dtype=np.int8))


def head_without_bias(folder: Path) -> Tensor:
    """Return the output embeddings (V, d) of an LM, on the GPU if there is one.

    Raises:
        ValueError: if its head has a bias.
    """
    network = load_model(folder)
    if getattr(network.get_output_embeddings(), "bias", None) is not None:
        raise ValueError(
            f"expected a head without bias in {folder}: with one, a vector outside the convex hull "
            "may still never win; leave ruled_out out of experiments for this model"
        )
    return head_weight(network).detach().to(available_device())


def read_certificates(folder: Path, *, seed: int, model: Path) -> NDArray[np.int8]:
    """Return how each output vector of an LM was certified, (V,) of `How`.

    Raises:
        ArtifactError: if they are of another LM.
    """
    expected = identity(model, kind="model")
    require_origin(folder, kind=CERTIFICATES, role=_role(seed), expected=expected)
    how = _load(folder / f"seed{seed}/directions.npz")["how"]
    for path in sorted((folder / f"seed{seed}").glob("programs-*.npz")):
        solved = _load(path)
        how[solved["places"]] = solved["how"]
    return how


def hull_rows(scored: ScoredSplit, how: NDArray[np.int8]) -> list[Row]:
    """Return how many output vectors were certified in which way, and how often text needs them.

    Args:
        scored: the targets.
        how: (V,), of `How`.
    """
    names, n = scored.row_names(METHOD), len(how)
    counts = {word: int((how == kind).sum()) for kind, word in WORDS.items()}
    rows = [
        {**names, "metric": f"vectors_{word}", "value": count, "n": n, "unit": "count"}
        for word, count in {**counts, "all": n}.items()
    ]
    rows.append(scored.text.share(names, "targets_inside_hull", how[scored.targets] == How.INSIDE))
    return rows


def most_stolen(rows: Sequence[Row]) -> Row:
    """Return the row of the LM seed that has most output vectors not certified to be outside."""
    seeds: dict[Any, Row] = {}
    for row in rows:
        if row["method"] == METHOD and row["metric"] in (
            "vectors_inside_hull",
            "vectors_undecided",
        ):
            before = seeds.setdefault(row["seed"], {**row, "value": 0, "seed": ""})
            before["value"] += row["value"]
    worst = max(seeds.values(), key=lambda row: row["value"])
    return worst | {"metric": "most_vectors_not_outside"}


def _role(seed: str | int) -> str:
    return f"model of seed {seed}"


def _left(file: Path) -> NDArray[np.int64]:
    return np.flatnonzero(_load(file)["how"] == How.UNDECIDED)


def _save(path: Path, **arrays: NDArray[Any]) -> None:
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        np.savez(file, **arrays)


def _load(path: Path) -> dict[str, NDArray[Any]]:
    with np.load(path, allow_pickle=False) as stored:
        return dict(stored)
