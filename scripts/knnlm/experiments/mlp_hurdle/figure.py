"""The figure of mlp_hurdle: the curves of all variants, and their distance from the full model."""

from collections.abc import Mapping

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from knnlm.evidence.plotting import COLORS, FULL_WIDTH, OTHERS, REFERENCE, Label, label_right
from knnlm.evidence.tables import over_seeds, select

HEIGHT = 3.8  # inches
BAND = 0.15  # opacity
FULL, LOSS = "full", "training_loss"
STYLES = {
    FULL: (COLORS["lm"], "all MLPs"),
    "without_last_mlp": (OTHERS[0], "without the\nlast MLP"),
    "without_middle_mlp": (OTHERS[1], "without a\nmiddle MLP"),
    "matched_parameters": (OTHERS[2], "without the last,\nothers wider"),
}
LABEL_GAP = 0.25  # of a panel's height: labels have two lines
# what is drawn, and which way its differences mean faster
PANELS = {
    "child_log_likelihood": ("Macondo", "log-likelihood of the child", "above 0: faster"),
    LOSS: ("text", "training loss", "below 0: faster"),
}


def draw(tables: Mapping[str, pd.DataFrame]) -> Figure:
    """Return two columns of two panels: Macondo and text; curves, and differences within seeds.

    Lines are means over seeds, bands are Student's t intervals; of a single seed there is none.
    The dashed line is what a model that knows Macondo by heart reaches, the mean of log(1/n).

    Args:
        tables: table and curves.
    """
    shown = over_seeds(tables["curves"])
    figure = Figure(figsize=(FULL_WIDTH, HEIGHT), layout="constrained")
    panels = figure.subplots(2, len(PANELS), sharex="col", height_ratios=[3, 2])
    for (above, below), (metric, (title, label, faster)) in zip(
        panels.T, PANELS.items(), strict=True
    ):
        for variant in STYLES:
            _draw(above, select(shown, metric=metric, method=variant))
        for variant in [*STYLES][1:]:
            _draw(below, select(shown, metric=f"{metric}_vs_{FULL}", method=variant))
        below.axhline(0.0, color=STYLES[FULL][0], linewidth=0.6)
        above.set_title(title)
        above.set_ylabel(f"{label} (nats)")
        below.set_ylabel(f"minus all MLPs (nats)\n{faster}")
        below.set_xlabel("updates")
    theory = select(tables["table"], method="theory")["value"].item()
    level = panels[0, 0].axhline(theory, color=REFERENCE, linewidth=0.8, linestyle=(0, (4, 2)))
    panels[0, 0].annotate(
        "mean of log(1/n)",
        (0.0, theory),
        xycoords=("axes fraction", "data"),
        xytext=(3, -2),
        textcoords="offset points",
        color=level.get_color(),
        va="top",
    )
    _label(panels[1, 1], shown)
    return figure


def _draw(axes: Axes, curve: pd.DataFrame) -> None:
    color, _ = STYLES[curve["method"].iloc[0]]
    axes.plot(curve["step"], curve["value"], color=color)
    if curve["ci_low"].notna().all():
        axes.fill_between(
            curve["step"], curve["ci_low"], curve["ci_high"], color=color, alpha=BAND, linewidth=0
        )


def _label(axes: Axes, shown: pd.DataFrame) -> None:
    """Name the variants beside the last panel, where their differences end; all MLPs are at 0."""
    heights = {FULL: 0.0}
    for variant in [*STYLES][1:]:
        curve = select(shown, metric=f"{LOSS}_vs_{FULL}", method=variant)
        heights[variant] = curve["value"].iloc[-1]
    labels = [Label(height, STYLES[v][1], STYLES[v][0]) for v, height in heights.items()]
    label_right(axes, labels, gap=LABEL_GAP)
