"""The figure of key_and_distance: what each key and distance changes, mixed and as an oracle."""

from collections.abc import Mapping

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from knnlm.evidence.plotting import COLORS, FULL_WIDTH
from knnlm.evidence.tables import over_seeds, select

METRIC = "perplexity_per_token_change_vs_lm"
PANELS = {  # of a method and a choice of k, temperature and lmbda
    ("knn_lm", "temperature_1"): "kNN-LM, k and temperature as published",
    ("knn_lm", "tuned"): "kNN-LM, tuned",
    ("oracle", "tuned"): "oracle: the better for each token",
}


def draw(tables: Mapping[str, pd.DataFrame]) -> Figure:
    """Return three panels with a row for each key and distance, its change against the LM."""
    rows = select(over_seeds(tables["table"]), metric=METRIC)
    figure = Figure(figsize=(FULL_WIDTH, 1.7), layout="constrained")
    panels = figure.subplots(1, len(PANELS), sharey=True)
    for axes, ((method, choice), title) in zip(panels, PANELS.items(), strict=True):
        of_method = rows[rows["method"] == method]
        _draw_panel(axes, of_method[of_method["setting"].str.endswith(f"/{choice}")])
        axes.set_title(title, loc="left")
    panels[0].invert_yaxis()
    panels[1].set_xlabel("change of perplexity per token against the LM, %")
    return figure


def _draw_panel(axes: Axes, rows: pd.DataFrame) -> None:
    for _, row in rows.iterrows():
        place = row["setting"].split("/")[0].upper().replace("_", ", ").replace("ATT", "att")
        place = place.replace("FFN", "ffn")
        axes.plot([row["ci_low"], row["ci_high"]], [place, place], color=COLORS["knn_lm"], lw=1.0)
        axes.plot(row["value"], place, "o", color=COLORS["knn_lm"], markersize=4)
    axes.tick_params(axis="y", length=0)
    axes.margins(y=0.15)
