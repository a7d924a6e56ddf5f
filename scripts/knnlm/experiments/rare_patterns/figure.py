"""The figure of rare_patterns: what is gained over the LM, by what train has of the context."""

from collections.abc import Mapping

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from knnlm.evidence.plotting import COLORS, FULL_WIDTH, LABELS
from knnlm.evidence.tables import over_seeds

METRIC = "nats_per_token_vs_lm"
OFFSET = {"knn_lm": -0.1, "control": 0.1}
PANELS = {  # what its settings begin with: axis label
    "target word": "times that train has the target's word",
    "preceding 3": "times that train has the 3 tokens before it",
    "common suffix": "longest context that train has, tokens",
}


def draw(tables: Mapping[str, pd.DataFrame]) -> Figure:
    """Return three panels of changes in nats per token against the LM, kNN-LM and control.

    Args:
        tables: `table` of `evaluate`; with several LM seeds the means are drawn.
    """
    table = tables["table"]
    rows = over_seeds(table[table["metric"] == METRIC])
    figure = Figure(figsize=(FULL_WIDTH, 2.4), layout="constrained")
    panels = figure.subplots(1, len(PANELS), sharey=True)
    for axes, (what, label) in zip(panels, panels_of(rows).items(), strict=True):
        _draw_panel(axes, rows, what)
        axes.set_xlabel(label)
    panels[0].set_ylabel("change against the LM, nats per token")
    panels[0].legend(frameon=False, fontsize=6.5, loc="best")
    return figure


def panels_of(rows: pd.DataFrame) -> dict[str, str]:
    """Return the panels; where 3 preceding tokens are not counted, of the longest that are."""
    counted = [name.split(":")[0] for name in rows["setting"] if name.startswith("preceding")]
    if "preceding 3" in counted:
        return PANELS
    length = max(int(name.split()[1]) for name in counted)
    renamed = {f"preceding {length}": f"times that train has the {length} tokens before it"}
    named = list(PANELS.items())
    return dict([named[0], *renamed.items(), named[2]])


def _draw_panel(axes: Axes, rows: pd.DataFrame, what: str) -> None:
    names = rows["setting"].str
    inside = rows[names.startswith(f"{what}: ") & ~names.contains("minus")]
    bins = list(dict.fromkeys(inside["setting"]))
    for method, offset in OFFSET.items():
        of_method = inside[inside["method"] == method]
        places = [bins.index(name) + offset for name in of_method["setting"]]
        color = COLORS[method]
        axes.vlines(places, of_method["ci_low"], of_method["ci_high"], color=color, linewidth=1.0)
        axes.plot(
            places, of_method["value"], "o", color=color, markersize=3.5, label=LABELS[method]
        )
    axes.axhline(0, color=COLORS["lm"], linewidth=1.0, linestyle=(0, (4, 2)), zorder=0)
    axes.set_xticks(range(len(bins)), [name.split(": ")[1] for name in bins])
