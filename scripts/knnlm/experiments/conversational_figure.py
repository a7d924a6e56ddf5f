"""The figure of conversational: loss and likelihood of the child's name over epochs."""

import matplotlib as mpl
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from knnlm.evidence.plotting import COLORS, FULL_WIDTH
from knnlm.evidence.tables import select
from knnlm.experiments.conversational_names import LOSS, METHODS, NAME

HEIGHT = 2.3  # inches of a row of panels
TRAINED, REFERENCE = METHODS["train"], METHODS["test"]
GRAY = "#9a9a9a"  # the paper's gray line
LINES = {  # by split: color, label
    "train": (COLORS["mlp"], "training questions (over-specified)"),
    "validation": (COLORS["knn_lm"], "held-out over-specified questions"),
    "test": (COLORS["control"], "test questions (bare)"),
}
AXES = {
    LOSS: "loss per token of the answer,\nspecial tokens included (nats)",
    NAME: "log-likelihood of\nthe child's name (nats)",
}
BAND = 0.15  # opacity
LEVEL_STYLE = (0, (4, 2))


def draw_conversational(table: pd.DataFrame, curves: pd.DataFrame) -> Figure:
    """Return a row of panels for each model: the loss, and the name alone, over epochs.

    Lines are means over seeds with bands of Student's t, gray is the same model trained on the
    test questions, at its last epoch, dashed what a perfect model reaches: Chiang et al. (2024),
    Figure 2. A metric that the tables lack, as those of a hosted model may, has no panel.

    Args:
        table: the first table of `evaluate_conversational`, for the levels of theory.
        curves: the second one.
    """
    models = list(dict.fromkeys(curves["model"]))
    metrics = [metric for metric in AXES if (curves["metric"] == metric).any()]
    figure = Figure(figsize=(FULL_WIDTH, len(models) * HEIGHT + 0.3), layout="constrained")
    panels = figure.subplots(len(models), len(metrics), squeeze=False)
    for row, model in zip(panels, models, strict=True):
        for axes, metric in zip(row, metrics, strict=True):
            _draw_panel(axes, table, curves, model=model, metric=metric)
    for axes in panels[-1]:
        axes.set_xlabel("epoch")
    handles, labels = panels[0, 0].get_legend_handles_labels()
    size = mpl.rcParams["axes.labelsize"]
    figure.legend(
        handles, labels, loc="outside lower center", ncols=3, frameon=False, fontsize=size
    )
    return figure


def _draw_panel(
    axes: Axes, table: pd.DataFrame, curves: pd.DataFrame, *, model: str, metric: str
) -> None:
    rows = curves[(curves["model"] == model) & (curves["metric"] == metric)]
    seeds = "all" if (rows["seed"] == "all").any() else rows["seed"].iloc[0]
    rows = rows[rows["seed"] == seeds]
    for split, (color, label) in LINES.items():
        line = rows[(rows["method"] == TRAINED) & (rows["split"] == split)]
        if len(line):
            axes.plot(line["epoch"], line["value"], color=color, label=label)
            axes.fill_between(
                line["epoch"], line["ci_low"], line["ci_high"], color=color, alpha=BAND, linewidth=0
            )
    end = select(rows, method=REFERENCE, split="test").iloc[-1]
    axes.axhline(end["value"], color=GRAY, label="test questions, trained on them")
    axes.axhspan(end["ci_low"], end["ci_high"], color=GRAY, alpha=BAND, linewidth=0)
    theory = select(table, model=model, method="theory", metric=metric, seed=seeds)["value"]
    axes.axhline(
        theory.item(), color="black", linewidth=0.8, linestyle=LEVEL_STYLE, label="perfect"
    )
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_title(model)
    axes.set_ylabel(AXES[metric])
