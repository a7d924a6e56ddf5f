"""The figure of memorizing_lm: training loss by epoch, and what each mixture gains on test."""

from collections.abc import Mapping

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from knnlm.evidence.plotting import COLORS, FULL_WIDTH, OTHERS, Label, label_right
from knnlm.evidence.tables import select

ALONE, MIXED = "memorizing_lm", "lm_with_memorizing_lm"  # in the table
COLOR = COLORS | {ALONE: OTHERS[0], MIXED: OTHERS[0]}
CHANGE = "perplexity_per_token_change_vs_lm"
TRAININGS = {
    "control": "with dropout, longer",
    "lm": "with dropout",
    ALONE: "trained on without",
}
ROWS = {  # method, setting: label
    (ALONE, ""): "memorizing LM, alone",
    (MIXED, "tuned"): "LM + memorizing LM",
    ("knn_lm", "at the weight of the memorizing LM"): "kNN-LM, at the same weight",
    ("knn_lm", "tuned"): "kNN-LM",
}


def draw(tables: Mapping[str, pd.DataFrame]) -> Figure:
    """Return two panels: left the training losses by epoch, right the changes against the LM.

    Args:
        tables: `table` and `epochs` of `evaluate`.
    """
    figure = Figure(figsize=(FULL_WIDTH, 2.4), layout="constrained")
    left, right = figure.subplots(1, 2)
    _draw_losses(left, tables["epochs"])
    _draw_changes(right, tables["table"])
    return figure


def _draw_losses(axes: Axes, curves: pd.DataFrame) -> None:
    ends = []
    for method, label in TRAININGS.items():
        curve = curves[curves["method"] == method]
        if len(curve):
            look = {"marker": "." if len(curve) == 1 else "", "color": COLOR[method]}
            axes.plot(curve["epoch"], curve["value"], **look)
            ends.append(Label(curve["value"].iloc[-1], label, COLOR[method]))
    axes.set_ylim(bottom=0)
    axes.set_xlabel("epoch")
    axes.set_ylabel("training loss, nats per token")
    label_right(axes, ends)


def _draw_changes(axes: Axes, table: pd.DataFrame) -> None:
    rows = select(table, metric=CHANGE)
    for (method, setting), label in ROWS.items():
        row = select(rows, method=method, setting=setting).iloc[0]
        color = COLOR[method]
        axes.plot([row["ci_low"], row["ci_high"]], [label, label], color=color, linewidth=1.0)
        axes.plot(row["value"], label, "o", color=color, markersize=4)
        axes.annotate(
            f"{row['value']:+.1f} %",
            (row["value"], label),
            xytext=(0, 5),
            textcoords="offset points",
            color=color,
            ha="center",
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.5},
        )
    axes.axvline(0, color=COLORS["lm"], linewidth=1.0, linestyle=(0, (4, 2)), zorder=0)
    axes.set_title("dashed: the LM alone", loc="right", color=COLORS["lm"])
    axes.invert_yaxis()
    axes.margins(x=0.12, y=0.18)
    axes.tick_params(axis="y", length=0)
    axes.set_xlabel("change of perplexity per token, % (test)")
