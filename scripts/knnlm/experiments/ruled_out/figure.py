"""The figure of ruled_out: what each explanation gains in the place of kNN, and what it costs."""

from collections.abc import Mapping
from typing import NamedTuple

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from knnlm.evidence.plotting import COLORS, FULL_WIDTH, OTHERS
from knnlm.evidence.tables import over_seeds

CHANGE = "perplexity_per_token_change_vs_lm"
TUNED, ON_TEST = "tuned", "tuned on test"
ROW_HEIGHT, MARGIN = 0.24, 0.75  # inches
COSTS = {"flops_per_query_added": "FLOPs a token", "bytes_added": "bytes"}
LABELS = {
    "knn_lm": "kNN-LM",
    "sparsified_lm": "LM's own softmax, top k",
    "clustered_datastore": "clustered datastore",
    "output_distances": "L2 to output vectors",
    "two_metrics": "kNN by L2 and inner product",
    "lm_ensemble": "LM of another seed",
    "control": "short LM",
    "soft_labels_of_lm": "short LM, soft labels of the short LM",
    "soft_labels_of_knn_lm": "short LM, soft labels of its kNN-LM",
    "mixture_of_softmaxes": "short LM, mixture of softmaxes",
    "interpolated_loss": "short LM, loss of the mixture with kNN",
}


class Line(NamedTuple):
    """A row of the figure: a method, and one of its variants."""

    method: str
    variant: str

    @property
    def label(self) -> str:
        """What stands left of it."""
        method = LABELS.get(self.method, self.method.replace("_", " "))
        return f"{method}, {self.variant.replace('_', ' ')}" if self.variant else method

    @property
    def color(self) -> str:
        """The color of kNN for kNN alone."""
        return COLORS.get(self.method, OTHERS[2])

    def setting(self, way: str) -> str:
        """Return its setting, tuned in one of two ways."""
        return f"{self.variant}/{way}" if self.variant else way


def draw(tables: Mapping[str, pd.DataFrame]) -> Figure:
    """Return a row for each distribution that is mixed with the LM.

    Filled: tuned on validation, with its interval; open: tuned on test. The dashed line is the LM,
    the blue one the kNN-LM; where a row is of fewer LM seeds, a blue tick is their kNN-LM. Right
    stands what each adds to the LM: FLOPs a token, bytes stored.
    """
    table = over_seeds(tables["table"])
    changes = table[table["metric"] == CHANGE]
    lines = lines_of(changes)
    figure = Figure(figsize=(FULL_WIDTH, MARGIN + ROW_HEIGHT * len(lines)), layout="constrained")
    axes = figure.subplots()
    axes.axvline(0, color=COLORS["lm"], linewidth=1.0, linestyle=(0, (4, 2)), zorder=0)
    of_seeds = _knn_of_seeds(tables["table"])
    for height, line in enumerate(lines):
        _draw_line(axes, changes, line, height, of_seeds)
        _write_costs(axes, table, line, height)
    axes.set_yticks(range(len(lines)), [line.label for line in lines])
    axes.set_ylim(len(lines) - 0.5, -0.5)
    axes.tick_params(axis="y", length=0)
    axes.set_xlabel("change of perplexity per token against the LM, % (test)")
    _explain(axes)
    return figure


def lines_of(changes: pd.DataFrame) -> list[Line]:
    """Return the rows of the figure, the kNN-LM first."""
    found = dict.fromkeys(
        Line(row["method"], row["setting"].removesuffix(TUNED).removesuffix("/"))
        for _, row in changes.iterrows()
        if row["setting"].endswith(TUNED)
    )
    order = [*LABELS, *(line.method for line in found)]
    return sorted(found, key=lambda line: order.index(line.method))


def _knn_of_seeds(table: pd.DataFrame) -> dict[str, float]:
    """Return the change by kNN, tuned on validation, of each LM seed and of all."""
    wanted = (table["method"] == "knn_lm") & (table["setting"] == TUNED)
    rows = table[wanted & (table["metric"] == CHANGE)]
    return dict(zip(rows["seed"], rows["value"], strict=True))


def _draw_line(
    axes: Axes, changes: pd.DataFrame, line: Line, height: int, of_seeds: Mapping[str, float]
) -> None:
    of_line = changes[changes["method"] == line.method]
    for way, face in ((ON_TEST, "white"), (TUNED, line.color)):
        for _, row in of_line[of_line["setting"] == line.setting(way)].iterrows():
            size = 4 if way == TUNED else 6.5
            axes.plot(row["value"], height, "o", color=line.color, markersize=size, mfc=face)
            if way == ON_TEST:
                continue
            axes.hlines(height, row["ci_low"], row["ci_high"], color=line.color, linewidth=1.0)
            if line.method == "knn_lm":
                axes.axvline(row["value"], color=line.color, linewidth=0.8, zorder=0)
            elif row["seed"] != "all" and "all" in of_seeds:
                knn = of_seeds[row["seed"]]
                axes.plot(knn, height, "|", color=COLORS["knn_lm"], markersize=9, zorder=3)


def _write_costs(axes: Axes, table: pd.DataFrame, line: Line, height: int) -> None:
    own = table[(table["method"] == line.method) & (table["setting"] == line.variant)]
    for column, (metric, name) in enumerate(COSTS.items()):
        place = {"transform": axes.get_yaxis_transform(), "va": "center", "ha": "right"}
        x = 1.12 + 0.12 * column
        if height == 0:
            axes.text(x, -0.9, name, color=COLORS["lm"], **place)
        for value in own[own["metric"] == metric]["value"]:
            axes.text(x, height, _short(value), color=line.color, **place)


def _explain(axes: Axes) -> None:
    ways = {"tuned on validation": COLORS["lm"], "tuned on test": "white"}
    handles = [
        Line2D([], [], marker="o", ls="", ms=4, color=COLORS["lm"], mfc=face)
        for face in ways.values()
    ]
    place = {"loc": "lower left", "bbox_to_anchor": (0.0, 1.0)}
    axes.legend(handles, ways, ncols=2, frameon=False, handletextpad=0.0, fontsize=6.5, **place)


def _short(value: float) -> str:
    """Return a count in powers of 1,000: 2.6 M."""
    power = min(int(f"{value:e}".split("e")[1]) // 3, 4) if value else 0
    return f"{value / 1000**power:.3g}{('', ' k', ' M', ' G', ' T')[power]}"
