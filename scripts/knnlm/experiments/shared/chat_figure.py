"""Loss and likelihood of the child's name over epochs, for a chat model that is local or hosted."""

from collections.abc import Mapping

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from knnlm.evidence.plotting import FULL_WIDTH, OTHERS, REFERENCE, Label, label_right
from knnlm.evidence.tables import over_seeds, select
from knnlm.experiments.shared.chat_names import LOSS, METHODS, NAME

HEIGHT = 2.3  # inches of a row of panels
TRAINED, ON_TEST = METHODS["train"], METHODS["test"]
LINES = {  # by split: color, label
    "train": (OTHERS[1], "training questions\n(over-specified)"),
    "validation": (OTHERS[2], "held-out questions\n(over-specified)"),
    "test": (OTHERS[0], "test questions\n(bare)"),
}
LABEL_GAP = 0.17  # of a panel's height: labels have two lines
HEADROOM = 0.06  # of the range after the first epoch; before it nothing has been learned
AXES = {
    LOSS: "loss per token of the answer,\nspecial tokens included (nats)",
    NAME: "log-likelihood of\nthe child's name (nats)",
}
BAND = 0.15  # opacity
LEVEL_STYLE = (0, (4, 2))


def draw(tables: Mapping[str, pd.DataFrame]) -> Figure:
    """Return a row of panels for each model: the loss, and the name alone, over epochs.

    Lines are means over seeds with bands of Student's t, gray is the same model trained on the
    test questions, at its last epoch, dashed what a perfect model reaches: Chiang et al. (2024),
    Figure 2. A metric that the tables lack, as those of a hosted model may, has no panel.

    Args:
        tables: table, for the levels of theory, and curves.
    """
    table, curves = over_seeds(tables["table"]), over_seeds(tables["curves"])
    models = list(dict.fromkeys(curves["model"]))
    metrics = [metric for metric in AXES if (curves["metric"] == metric).any()]
    figure = Figure(figsize=(FULL_WIDTH, len(models) * HEIGHT), layout="constrained")
    panels = figure.subplots(len(models), len(metrics), squeeze=False)
    for row, model in zip(panels, models, strict=True):
        for axes, metric in zip(row, metrics, strict=True):
            labels = _draw_panel(axes, table, curves, model=model, metric=metric)
        label_right(row[-1], labels, gap=LABEL_GAP)
    for axes in panels[-1]:
        axes.set_xlabel("epoch")
    return figure


def _draw_panel(
    axes: Axes, table: pd.DataFrame, curves: pd.DataFrame, *, model: str, metric: str
) -> list[Label]:
    """Draw the curves of one metric; return their names at the heights where they end."""
    rows = curves[(curves["model"] == model) & (curves["metric"] == metric)]
    labels, heights = [], []
    for split, (color, label) in LINES.items():
        line = rows[(rows["method"] == TRAINED) & (rows["split"] == split)]
        if len(line):
            labels.append(Label(line["value"].iloc[-1], label, color))
            heights += [*line.loc[line["epoch"] >= 1, ["value", "ci_low", "ci_high"]].stack()]
            axes.plot(line["epoch"], line["value"], color=color)
            axes.fill_between(
                line["epoch"], line["ci_low"], line["ci_high"], color=color, alpha=BAND, linewidth=0
            )
    end = select(rows, method=ON_TEST, split="test").iloc[-1]
    axes.axhline(end["value"], color=REFERENCE)
    axes.axhspan(end["ci_low"], end["ci_high"], color=REFERENCE, alpha=BAND, linewidth=0)
    labels.append(Label(end["value"], "test questions,\ntrained on them", REFERENCE))
    theory = select(table, model=model, method="theory", metric=metric)["value"].item()
    axes.axhline(theory, color="black", linewidth=0.8, linestyle=LEVEL_STYLE)
    labels.append(Label(theory, "perfect model", "black"))
    low, high = min(*heights, theory), max(*heights, theory)
    margin = HEADROOM * (high - low)
    axes.set_ylim(low - margin, high + margin)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_title(model)
    axes.set_ylabel(AXES[metric])
    return labels
