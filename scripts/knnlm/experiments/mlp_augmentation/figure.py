"""The figure of mlp_augmentation: what each method gains, stores and computes."""

from collections.abc import Mapping
from typing import NamedTuple

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from knnlm.evidence.plotting import COLORS, FULL_WIDTH
from knnlm.evidence.tables import over_seeds
from knnlm.experiments.mlp_augmentation.macondo import CORPUS

ROW_HEIGHT, MARGIN = 0.26, 0.8  # inches
FAR = 60.0  # percent; what is further away stands at the edge, with its value
WIDTHS = (2.2, 1.0, 1.0)  # of the panels, relative
AXES = (
    "change of perplexity per token against the LM, %",
    "bytes stored",
    "FLOPs a query",
)
CHANGE = "perplexity_per_token_change_vs_lm"
W = {
    "lm_head_frozen": "W of the LM, frozen",
    "lm_head_trained": "W of the LM, trained on",
    "random": "W from random",
}
TRAINED_ON = {"last_layers": "last layers", "whole_model": "whole LM"}


class FigureRow(NamedTuple):
    """A row of the figure: its label, and the settings under which the table has its numbers."""

    label: str
    color: str
    method: str
    mixed: str  # setting of perplexity, mixed with the LM
    alone: str | None  # the same without the LM
    bytes: str
    flops: str


def lines_of(table: pd.DataFrame) -> list[FigureRow]:
    """Return the rows of the figure, from the methods and settings that the table has."""
    settings = table[table["metric"] == CHANGE].groupby("method", sort=False)["setting"].unique()
    lines = []
    for setting in settings.get("knn_lm", []):
        index = setting.split("/")[0]
        stored = "keys_float16_and_values" if index == "exact" else f"{index}_and_values"
        label = f"kNN-LM, {index}"
        lines.append(FigureRow(label, COLORS["knn_lm"], "knn_lm", setting, None, stored, index))
    for setting in settings.get("mlp", []):
        head, way = setting.split("/")
        if way == "interpolated":
            place = (setting, f"{head}/alone", head, head)
            lines.append(FigureRow(f"MLP, {W[head]}", COLORS["mlp"], "mlp", *place))
    for control in (name for name in TRAINED_ON if name in settings):
        label, place = (
            f"no MLP, {TRAINED_ON[control]} trained on",
            ("interpolated", "alone", "", ""),
        )
        lines.append(FigureRow(label, COLORS["control"], control, *place))
    return lines


def draw(tables: Mapping[str, pd.DataFrame]) -> Figure:
    """Return three panels with one row a method.

    Left the change of perplexity per token against the LM, with its interval: filled mixed with
    the LM, open alone; an arrow at the edge is a number beyond it. Middle the bytes stored beside
    the LM, right the FLOPs that a query costs beside the LM's; dashed lines mark the LM itself.

    Args:
        tables: `table` of `evaluate`; with several LM seeds their means are drawn.
    """
    table = tables["table"]
    table = over_seeds(table[table["corpus"] != CORPUS])  # Macondo has a figure of its own
    lines = lines_of(table)
    height = MARGIN + ROW_HEIGHT * len(lines)
    figure = Figure(figsize=(FULL_WIDTH, height), layout="constrained")
    panels = figure.subplots(1, 3, sharey=True, width_ratios=WIDTHS)
    _draw_changes(panels[0], table, lines)
    _draw_counts(panels[1], table, lines, metric="bytes", settings=[x.bytes for x in lines])
    flops = [x.flops for x in lines]
    _draw_counts(panels[2], table, lines, metric="flops_per_query_added", settings=flops)
    own = table[(table["method"] == "lm") & (table["metric"] == "flops_per_query")]["value"].mean()
    _mark(panels[0], 0, "LM")
    _mark(panels[2], own, "the LM's own")
    panels[0].set_yticks(range(len(lines)), [line.label for line in lines])
    panels[0].invert_yaxis()
    for axes, label in zip(panels, AXES, strict=True):
        axes.set_xlabel(label)
        axes.tick_params(axis="y", length=0)
    return figure


def _mark(axes: Axes, place: float, text: str) -> None:
    """Draw a dashed line for the LM, named above it."""
    axes.axvline(place, color=COLORS["lm"], linewidth=1.0, linestyle=(0, (4, 2)), zorder=0)
    axes.annotate(
        text,
        (place, 1.0),
        xycoords=("data", "axes fraction"),
        xytext=(0, 2),
        textcoords="offset points",
        color=COLORS["lm"],
        ha="center",
        va="bottom",
    )


def _draw_changes(axes: Axes, table: pd.DataFrame, lines: list[FigureRow]) -> None:
    for height, line in enumerate(lines):
        for setting, offset, face in ((line.alone, 0.16, "white"), (line.mixed, -0.16, line.color)):
            if setting is None:
                continue
            row = _row(table, line.method, setting, CHANGE)
            place = height + (offset if line.alone else 0)
            look = {"markerfacecolor": face, "markersize": 4, "color": line.color}
            if row["value"] > FAR:
                axes.plot(FAR, place, ">", **look, clip_on=False)
                axes.text(0.97 * FAR, place, f"{row['value']:+,.0f} %", ha="right", va="center")
                continue
            axes.hlines(place, row["ci_low"], row["ci_high"], color=line.color, linewidth=1.0)
            axes.plot(row["value"], place, "o", **look)
    axes.set_xlim(right=min(axes.get_xlim()[1], FAR))
    ways = {"mixed with the LM": COLORS["lm"], "alone": "white"}
    handles = [
        Line2D([], [], marker="o", ls="", ms=4, color=COLORS["lm"], markerfacecolor=face)
        for face in ways.values()
    ]
    place = {"loc": "lower right", "bbox_to_anchor": (1.0, 0.97)}
    axes.legend(handles, ways, ncols=2, frameon=False, handletextpad=0.0, fontsize=6.5, **place)


def _draw_counts(
    axes: Axes, table: pd.DataFrame, lines: list[FigureRow], *, metric: str, settings: list[str]
) -> None:
    axes.set_xscale("log")
    for height, (line, setting) in enumerate(zip(lines, settings, strict=True)):
        value = _row(table, line.method, setting, metric)["value"]
        axes.plot(value, height, "o", color=line.color, markersize=4)
        axes.annotate(
            _short(value),
            (value, height),
            xytext=(0, 3),
            textcoords="offset points",
            color=line.color,
            ha="center",
            va="bottom",
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.5},
        )
    axes.margins(x=0.2)


def _row(table: pd.DataFrame, method: str, setting: str, metric: str) -> pd.Series:
    names = {"method": method, "setting": setting, "metric": metric}
    wanted = (table[list(names)] == pd.Series(names)).all(axis=1)
    return table[wanted].iloc[0]


def _short(value: float) -> str:
    """Return a count in powers of 1,000: 2.6 M."""
    power = min(int(f"{value:e}".split("e")[1]) // 3, 4)
    return f"{value / 1000**power:.3g}{('', ' k', ' M', ' G', ' T')[power]}"
