"""The rows of the walks: where each starts, where each rule ends it, and the best of them."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from knnlm.evidence.scored_text import Row
from knnlm.experiments.softmax_bottleneck.problem import FROM_KEY, FROM_LM, F
from knnlm.experiments.softmax_bottleneck.projected_seed import ProjectedSeed
from knnlm.experiments.softmax_bottleneck.projection import Direction
from knnlm.experiments.softmax_bottleneck.scores import PER_QUERY, Arrays, under
from knnlm.experiments.softmax_bottleneck.walks import DIRECTIONS, START, Walk, at


class End(NamedTuple):
    """Where a rule ended a walk of one map."""

    last_layers: str
    target: str
    start: str
    direction: Direction
    optimizer: str
    stop: str

    @property
    def setting(self) -> str:
        """The setting of its rows."""
        return "/".join(self[1:])

    @property
    def others(self) -> dict[str, "End"]:
        """The ends that it is compared with, by name: each differs in one choice, or is f's.

        They are those of f, the paper's, from both starts, and of the other direction.
        """
        named = {f"{F}_{start}": self._replace(last_layers=F, start=start) for start in STARTS}
        if self.direction == "f||p":
            named["p||f"] = self._replace(direction="p||f")
        return {name: other for name, other in named.items() if other != self}


STARTS = (FROM_LM, FROM_KEY)
Walked = Mapping[str, Mapping[Walk, Arrays]]  # by map


def walk_rows(
    seed: ProjectedSeed, walked: Walked, nearest: Mapping[str, NDArray[np.float64]]
) -> Iterator[Row]:
    """Yield the rows of every start and end, and of the best that any walk of a map reached.

    Args:
        seed: what the projections are held against.
        walked: what each walk reached.
        nearest: (n,) by target, the certified least KL[p || f] of the LM's own head.
    """
    ends = ends_of(walked)
    starts = {
        (last_layers, walk.target, walk.start): under(START, found)
        for last_layers, walks in walked.items()
        for walk, found in walks.items()
    }
    for (last_layers, target, start), found in starts.items():
        names = seed.scored.row_names(last_layers, f"{target}/{start}/start")
        yield from seed.projected(names, found, target)
    for end, found in ends.items():
        names = seed.scored.row_names(end.last_layers, end.setting)
        yield from seed.projected(names, found, end.target)
        yield seed.mean(names, "minimized_kl", found[f"kl_{DIRECTIONS[end.direction]}"])
        yield seed.mean(names, "kl_p_f_above_optimum", found["kl_p_f"] - nearest[end.target])
        yield from _comparisons(seed, names, end, ends)
        yield seed.row(names, "updates", float(found["updates"].mean()), unit="updates")
        yield seed.row(names, "stopped", float(found["stopped"].mean()), unit="share")
    for last_layers, target in dict.fromkeys((end.last_layers, end.target) for end in ends):
        reached = [found for end, found in ends.items() if end[:2] == (last_layers, target)]
        for direction, kl in DIRECTIONS.items():
            if (last_layers, direction) == (F, "p||f"):
                continue  # its optimum is certified
            names = seed.scored.row_names(last_layers, f"{target}/best/{direction}")
            found = best_of(reached, f"kl_{kl}")
            yield from seed.projected(names, found, target)
            yield seed.mean(names, "kl_p_f_above_optimum", found["kl_p_f"] - nearest[target])


def ends_of(walked: Walked) -> dict[End, Arrays]:
    """Return what holds where each rule ended each walk, (n,) by name."""
    return {
        End(last_layers, *walk[:4], stop.name): under(at(stop), found)
        for last_layers, walks in walked.items()
        for walk, found in walks.items()
        for stop in walk.stops
    }


def best_of(reached: Sequence[Arrays], kl: str) -> Arrays:
    """Return, for each query, what the projection with the least KL reached.

    It is chosen by its KL, not by its nll. As no walk is known to end in a minimum, the least KL
    of all z lies at or below it, no more is known.

    Args:
        reached: nll and both KLs of each projection, (n,) in nats.
        kl: kl_p_f or kl_f_p.
    """
    chosen = np.argmin([found[kl] for found in reached], axis=0)
    queries = np.arange(len(chosen))
    stacked = {name: np.stack([found[name] for found in reached]) for name in PER_QUERY}
    return {name: values[chosen, queries] for name, values in stacked.items()}


def _comparisons(
    seed: ProjectedSeed, names: Mapping[str, Any], end: End, ends: Mapping[End, Arrays]
) -> Iterator[Row]:
    """Yield the paired differences in nll between an end and those that it is compared with."""
    stops = [other for other in ends if other[:-1] == end[:-1]]
    others = end.others | {stops[-1].stop: stops[-1]}
    for name, other in others.items():
        if other in ends and other != end:
            difference = ends[end]["nll"] - ends[other]["nll"]
            yield seed.mean(names, f"nats_per_token_vs_{name}", difference)
