"""The figure of trained_embeddings: perplexity by vectors a word, alone, mixed and as an oracle."""

from collections.abc import Mapping

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from knnlm.evidence.plotting import COLORS, FULL_WIDTH, OTHERS
from knnlm.evidence.tables import over_seeds, select

WAYS = {
    "alone": "alone",
    "interpolated": "mixed with the LM",
    "oracle": "oracle: the better of both",
}
SITES = {"att": OTHERS[0], "ffn": OTHERS[1]}
APART = {"att": 0.0, "ffn": 0.1}  # so that intervals do not cover each other
DEALT = {"frequency": "x", "loss": "+"}
LM, KNN = (0, (4, 2)), (0, (1, 1.5))  # dashes


def draw(tables: Mapping[str, pd.DataFrame]) -> Figure:
    """Return a panel a way: one line a site over vectors a word, levels for LM and kNN-LM.

    Args:
        tables: `table` of `evaluate`.
    """
    rows = select(over_seeds(tables["table"]), metric="perplexity_per_token", split="test")
    figure = Figure(figsize=(FULL_WIDTH, 2.5), layout="constrained")
    panels = figure.subplots(1, len(WAYS))
    for axes, (way, title) in zip(panels, WAYS.items(), strict=True):
        _draw_levels(axes, rows, way)
        for site, color in SITES.items():
            _draw_sizes(axes, _embeddings(rows, site, way), color)
        axes.set_title(title)
        axes.set_xlabel("vectors a word")
        axes.xaxis.get_major_locator().set_params(integer=True)
    panels[0].set_ylabel("perplexity per token (test)")
    handles = panels[1].get_legend_handles_labels()
    place = {"loc": "outside lower center", "ncols": 6, "frameon": False}
    figure.legend(*handles, **place, fontsize=6.5, columnspacing=1.2, handlelength=1.8)
    return figure


def _draw_levels(axes: Axes, rows: pd.DataFrame, way: str) -> None:
    lm = rows[rows["method"] == "lm"]["value"].item()
    axes.axhline(lm, color=COLORS["lm"], linestyle=LM, linewidth=1.0, label="LM")
    knn = rows[(rows["method"] == "knn_lm") & (rows["setting"] == f"att/{way}")]
    if len(knn):  # alone it has none
        level = {"color": COLORS["knn_lm"], "linestyle": KNN, "linewidth": 1.2}
        axes.axhline(knn["value"].item(), **level, label="kNN-LM (att)")


def _embeddings(rows: pd.DataFrame, site: str, way: str) -> pd.DataFrame:
    """Return the embeddings of a site by vectors a word; `dealt` where not all have as many."""
    parts = rows[rows["method"] == "embeddings"].copy()
    names = parts["setting"].str.split("/", expand=True)
    parts["vectors"] = names[1].str.partition("_")[0].astype(int)
    parts["dealt"] = names[1].str.partition("_by_")[2]
    parts["site"] = names[0]
    return parts[(names[0] == site) & (names[2] == way)]


def _draw_sizes(axes: Axes, rows: pd.DataFrame, color: str) -> None:
    even = rows[rows["dealt"] == ""]
    errors = [even["value"] - even["ci_low"], even["ci_high"] - even["value"]]
    site = rows["site"].iloc[0]
    places = even["vectors"] + APART[site]
    look = {"color": color, "marker": "o", "markersize": 3, "elinewidth": 0.6}
    axes.errorbar(places, even["value"], yerr=errors, **look, label=f"from {site}")
    for _, row in rows[rows["dealt"] != ""].iterrows():
        shape = {"color": color, "linestyle": "", "markersize": 5}
        label = f"from {site}, dealt out by {row['dealt']}"
        axes.plot(row["vectors"], row["value"], DEALT[row["dealt"]], **shape, label=label)
