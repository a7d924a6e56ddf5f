"""The distributions that take time: a file for each, so that a killed job goes on with the next.

A module a hypothesis: it has the method's name in tables and in the settings, and `stages`.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from knnlm.experiments.ruled_out import clustered, output_distances, sparsified
from knnlm.experiments.ruled_out.component import Component, read_component
from knnlm.experiments.ruled_out.subject import Subject, subjects
from knnlm.experiments.shared.job import Inputs
from knnlm.experiments.shared.scored_run import ScoredRun
from knnlm.runtime.artifacts import read_manifest, require_origin
from knnlm.runtime.making import Target, each_missing, making

ALTERNATIVES = "alternatives"
EXPERIMENT = "ruled_out"
MODULES = (sparsified, clustered, output_distances)


def score_alternatives(target: Target, *, inputs: Inputs, settings: Mapping[str, Any]) -> None:
    """Score the targets of both splits by every distribution that might stand in kNN's place.

    Args:
        target: what is made: seed{n}/{method}-{variant}.npz.
        inputs: models, datastores, queries, neighbors and tuned points.
        settings: corpus, lm_seeds, baseline, datastores, indexes and ruled_out.

    Raises:
        ArtifactError: if the folders do not belong together.
        ValueError: if there are more clusters than entries.
    """
    own, run = settings[EXPERIMENT], ScoredRun.of(EXPERIMENT, inputs, settings)
    every = subjects(inputs, settings, run)
    made_from = {role: one for subject in every for role, one in subject.origins().items()}
    with making(target, kind=ALTERNATIVES, made_from=made_from, settings=own) as made:
        stages = {
            path: make
            for subject in every
            for module in MODULES
            for path, make in module.stages(
                subject, own[module.METHOD], made.folder / f"seed{subject.seed}"
            ).items()
        }
        for path in each_missing({path: path for path in stages}, label="scoring", name="files"):
            path.parent.mkdir(parents=True, exist_ok=True)
            stages[path]()


def read_alternatives(folder: Path, subject: Subject) -> list[Component]:
    """Return the distributions of one LM seed, in the order in which they were made.

    Raises:
        ArtifactError: if they are of another LM, or of other queries.
    """
    for role, expected in subject.origins().items():
        require_origin(folder, kind=ALTERNATIVES, role=role, expected=expected)
    settings = read_manifest(folder, kind=ALTERNATIVES)["settings"]
    return [
        read_component(path)
        for module in MODULES
        for path in module.stages(subject, settings[module.METHOD], folder / f"seed{subject.seed}")
        if path.suffix == ".npz"
    ]
