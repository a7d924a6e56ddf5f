"""The figure of softmax_bottleneck: the share of the gap recovered, by method and by rank."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import StrMethodFormatter

from knnlm.evidence.plotting import COLORS, FULL_WIDTH, OTHERS
from knnlm.evidence.tables import over_seeds

HEIGHT = 3.1  # inches
WIDTHS = (1.5, 1.0)  # of the panels, relative
LOWEST = -0.5  # share at which the axes end: worse than the LM by half of the gap
APART = 0.17  # points of one line, in lines
NEAREST = "black"  # the optimum, or the nearest that was found
WALKS = OTHERS  # one for each optimizer
OTHER_HEADS = OTHERS[2]
MAPS = {"head": "head", "f": "f (norm, head)", "f_g": r"f$\circ$g (MLP, norm, head)"}
STARTS = {"from_lm": "from the LM", "from_key": "from enc(c)"}
FACES = {"p||f": "full", "f||p": "none"}


class Shown(NamedTuple):
    """A line of the left panel: its label, the map, and the settings of its points."""

    label: str
    method: str
    settings: list[str]


def draw(tables: Mapping[str, pd.DataFrame]) -> Figure:
    """Return two panels of the share of the perplexity gap from LM (0) to kNN-LM (1).

    Left, by map and start: what each optimizer reached, filled by minimizing KL[p || f] and open
    by KL[f || p], beside the certified optimum of the head and the nearest that was found for
    the others. Right, at the certified optimum: over the rank of the LM's head, and on the heads
    of other models. Bars and band: intervals. A point that is far worse than the LM stands at
    the edge with its value.

    Args:
        tables: `table` of `evaluate`; with several LM seeds their means are drawn.
    """
    table = over_seeds(tables["table"])
    shares = table[table["metric"] == "share_of_gap"]
    shares = shares[shares["setting"].str.startswith("tuned/")]
    figure = Figure(figsize=(FULL_WIDTH, HEIGHT), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=WIDTHS)
    _draw_methods(left, shares)
    ranks = table[table["metric"] == "rank"].set_index("setting")["value"]
    _draw_ranks(right, shares[shares["setting"].isin(ranks.index)].set_index("setting"), ranks)
    return figure


def shown_methods(shares: pd.DataFrame) -> list[Shown]:
    """Return the lines of the left panel, from the methods and settings that the table has."""
    lines = []
    for method, label in MAPS.items():
        settings = [*shares[shares["method"] == method]["setting"]]
        if "tuned/best" in settings:
            lines.append(Shown(f"{label}, best found", method, ["tuned/best"]))
        if method == "head":
            lines.append(Shown(f"{label}, optimum", method, ["tuned/optimum/own"]))
        for start, origin in STARTS.items():
            short = [s for s in settings if s.startswith(f"tuned/{start}/") and "/long" not in s]
            if short:
                lines.append(Shown(f"{label}, {origin}", method, short))
    return lines


def _draw_methods(axes: Axes, shares: pd.DataFrame) -> None:
    lines, colors = shown_methods(shares), {}
    for height, line in enumerate(lines):
        for number, setting in enumerate(line.settings):
            color, face = NEAREST, "full"
            if len(line.settings) > 1:
                _, _, direction, optimizer = setting.split("/")
                color = colors.setdefault(optimizer, WALKS[len(colors) % len(WALKS)])
                face = FACES[direction]
            place = height + APART * (number - (len(line.settings) - 1) / 2)
            row = shares[(shares["method"] == line.method) & (shares["setting"] == setting)]
            _draw_point(axes, row.iloc[0], place, color=color, face=face)
    _mark_ends(axes.axvline)
    axes.set_yticks(range(len(lines)), [line.label for line in lines])
    axes.tick_params(axis="y", length=0)
    axes.invert_yaxis()
    axes.set_xlim(LOWEST, max(1.05, axes.get_xlim()[1]))
    axes.set_xlabel("share of the perplexity gap recovered (LM 0, kNN-LM 1)")
    _draw_legend(axes, colors)


def _draw_point(axes: Axes, row: pd.Series, place: float, *, color: str, face: str) -> None:
    style = {"color": color, "fillstyle": face, "markersize": 3.5, "linestyle": "none"}
    if row["value"] >= LOWEST:
        axes.hlines(place, row["ci_low"], row["ci_high"], color=color, linewidth=0.9)
        axes.plot(row["value"], place, marker="o", **style)
        return
    axes.plot(LOWEST, place, marker="<", clip_on=False, **style)
    axes.annotate(
        f"{row['value']:.3g}",
        (LOWEST, place),
        xytext=(5, 0),
        textcoords="offset points",
        color=color,
        fontsize=5,
        va="center",
    )


def _draw_legend(axes: Axes, colors: dict[str, str]) -> None:
    def entry(color: str, face: str, label: str) -> Line2D:
        style = {"marker": "o", "markersize": 3.5, "linestyle": "none"}
        return Line2D([], [], color=color, fillstyle=face, label=label, **style)

    walks = [entry(color, "full", name.replace("_", " ")) for name, color in colors.items()]
    directions = [
        entry(COLORS["lm"], "full", "by KL[p || f]"),
        entry(COLORS["lm"], "none", "by KL[f || p]"),
    ]
    axes.legend(
        handles=[*walks, *directions],
        loc="lower center",
        bbox_to_anchor=(0.5, 1.0),
        ncols=len(walks) + len(directions),
        frameon=False,
        fontsize=6,
        columnspacing=1.0,
        handletextpad=0.1,
    )


def _draw_ranks(axes: Axes, shares: pd.DataFrame, ranks: pd.Series) -> None:
    names = {setting: setting.removeprefix("tuned/optimum/") for setting in shares.index}
    own = [s for s, name in names.items() if name == "own" or name.startswith("rank_")]
    cut = shares.loc[own].assign(rank=ranks).sort_values("rank")
    axes.fill_between(cut["rank"], cut["ci_low"], cut["ci_high"], color=NEAREST, alpha=0.2, lw=0)
    axes.plot(cut["rank"], cut["value"], color=NEAREST, marker="o", markersize=3.5)
    for setting, row in shares.drop(own).iterrows():
        rank = ranks[setting]
        axes.vlines(rank, row["ci_low"], row["ci_high"], color=OTHER_HEADS, linewidth=0.9)
        axes.plot(rank, row["value"], "s", color=OTHER_HEADS, markersize=3.5)
        axes.annotate(
            names[setting],
            (rank, row["value"]),
            xytext=(4, 0),
            textcoords="offset points",
            color=OTHER_HEADS,
            va="center",
        )
    _mark_ends(axes.axhline)
    axes.set_xscale("log", base=2)
    axes.margins(x=0.12)
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.set_ylim(bottom=max(LOWEST, axes.get_ylim()[0]))
    axes.set_xlabel("rank of W: the LM's head cut by SVD (line),\nheads of other models (squares)")
    axes.set_ylabel("share recovered at the certified optimum")


def _mark_ends(line: Callable[..., object]) -> None:
    """Draw the LM at 0 and the kNN-LM at 1."""
    for share, color in {0.0: COLORS["lm"], 1.0: COLORS["knn_lm"]}.items():
        line(share, color=color, linewidth=0.8, linestyle=(0, (4, 2)), zorder=0)
