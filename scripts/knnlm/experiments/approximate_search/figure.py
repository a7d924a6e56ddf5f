"""The figure of approximate_search: the size of the datastore, and what approximation changes."""

from collections.abc import Mapping

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from knnlm.evidence.plotting import COLORS, FULL_WIDTH, LABELS, OTHERS
from knnlm.evidence.tables import select

CHOICES = {"temperature_1": "temperature 1", "tuned": "temperature tuned"}
STYLES = {"temperature_1": (0, (1, 1)), "tuned": "-"}
REAL = "real_real"
OTHER_MODES = {  # compared with the real one: label, color, and how far beside its share it stands
    "approximate_approximate": ("approximate mask and score", OTHERS[0], -0.012),
    "approximate_real": ("approximate mask, real score", OTHERS[1], 0.012),
    "half_half": ("real, in fp16", "black", 0.0),
}


def draw(tables: Mapping[str, pd.DataFrame]) -> Figure:
    """Return perplexity over the share of the datastore, and what masks and scores change.

    Left the real mask and score at both choices of temperature, dashed the LM; in the middle and
    right the change of perplexity by the others, in pairs, with intervals.
    """
    rows = tables["table"]
    lm = select(rows, method="lm", metric="perplexity_per_token")["value"].item()
    rows = rows[rows["method"] == "knn_lm"].copy()
    names = rows["setting"].str.split("/", expand=True)
    rows["share"], rows["mode"], rows["choice"] = names[0].astype(float), names[1], names[2]
    figure = Figure(figsize=(FULL_WIDTH, 2.5), layout="constrained")
    first, *others = figure.subplots(1, 3)
    others[1].sharey(others[0])
    _draw_levels(first, select(rows, metric="perplexity_per_token", mode=REAL), lm)
    changes = select(rows, metric=f"perplexity_per_token_change_vs_{REAL}")
    for axes, (choice, title) in zip(others, CHOICES.items(), strict=True):
        _draw_changes(axes, changes[changes["choice"] == choice])
        axes.set_title(title, loc="left")
    others[0].set_ylabel("change against both real, %")
    named = others[0].get_legend_handles_labels()
    figure.legend(*named, frameon=False, fontsize=6.5, loc="outside lower right", ncols=3)
    for axes in (first, *others):
        axes.xaxis.set_major_formatter(PercentFormatter(1.0))
        axes.set_xlabel("share of the datastore")
    return figure


def _draw_levels(axes: Axes, rows: pd.DataFrame, lm: float) -> None:
    axes.axhline(lm, color=COLORS["lm"], linewidth=1.0, linestyle=(0, (4, 2)), label=LABELS["lm"])
    for choice, label in CHOICES.items():
        line = rows[rows["choice"] == choice].sort_values("share")
        style = {"color": COLORS["knn_lm"], "linestyle": STYLES[choice], "label": label}
        axes.plot(line["share"], line["value"], marker="o", markersize=2.5, **style)
    axes.set_ylabel("perplexity per token (test)")
    axes.set_title("real mask and score", loc="left")
    axes.legend(frameon=False, fontsize=6, loc="lower left")


def _draw_changes(axes: Axes, rows: pd.DataFrame) -> None:
    axes.axhline(0, color=COLORS["knn_lm"], linewidth=1.0)
    for mode, (label, color, beside) in OTHER_MODES.items():
        points = rows[rows["mode"] == mode].sort_values("share")
        places = points["share"] + beside
        axes.vlines(places, points["ci_low"], points["ci_high"], color=color, linewidth=1.0)
        marker = "x" if mode == "half_half" else "o"
        axes.plot(places, points["value"], marker, color=color, markersize=3, label=label)
