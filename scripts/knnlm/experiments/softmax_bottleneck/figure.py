"""The figure of softmax_bottleneck: the share of the gap recovered, by method and by rank."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.lines import Line2D
from matplotlib.ticker import StrMethodFormatter

from knnlm.evidence.plotting import COLORS, FULL_WIDTH, OTHERS, REFERENCE
from knnlm.evidence.tables import over_seeds

HEIGHT = 5.6  # inches
HEIGHTS = (1.9, 1.0)  # of the rows of panels, relative
LOWEST, HIGHEST = -0.5, 2.0  # shares at which the axes end
APART = 0.09  # points of one line, in lines
NEAREST = "black"  # the optimum, or the nearest that was found
WALKS = (*OTHERS, REFERENCE)  # one for each optimizer and stop
OTHER_HEADS = OTHERS[2]
TARGETS = {
    "tuned": "tuned",
    "published": "published",
    "published_tuned_temperature": "published, tuned temperature",
}
MAPS = {"f": "f", "norm_and_f": "norm and f", "f_g": r"f$\circ$g"}
STARTS = {"from_lm": "from the LM", "from_key": "from enc(c)"}
FACES = {"p||f": "full", "f||p": "none"}
OPTIMUM = "optimum/own"  # by KL[p || f]
BEST = {"best/p||f": "full", "best/f||p": "none"}


class Shown(NamedTuple):
    """A line of an upper panel: its label, the map, and the settings of its points.

    The settings stand without the target, which is that of the panel.
    """

    label: str
    method: str
    settings: list[str]


def draw(tables: Mapping[str, pd.DataFrame]) -> Figure:
    """Return panels of the share of the perplexity gap from LM (0) to kNN-LM (1).

    Above, a panel for each kNN-LM that is projected: by map and start what each optimizer reached
    at each stop, filled by minimizing KL[p || f] and open by KL[f || p], and the nearest: the
    certified optimum, or the best that was found. Below, at the certified optimum of the tuned
    kNN-LM: over the rank of the LM's head, and on the heads of other models. Bars and band:
    intervals. A point beyond an axis stands at its edge with its value.

    Args:
        tables: `table` of `evaluate`; with several LM seeds their means are drawn.
    """
    table = over_seeds(tables["table"])
    shares = table[table["metric"] == "share_of_gap"]
    target = shares["setting"].str.partition("/")
    shares = shares.assign(target=target[0], setting=target[2])
    figure = Figure(figsize=(FULL_WIDTH, HEIGHT), layout="constrained")
    above, below = figure.subfigures(2, 1, height_ratios=HEIGHTS)
    _draw_targets(above, shares)
    tuned = shares[shares["target"] == "tuned"].set_index("setting")
    ranks = table[table["metric"] == "rank"].set_index("setting")["value"]
    ranks = ranks[ranks.index.str.startswith("tuned/")].rename(lambda s: s.removeprefix("tuned/"))
    _draw_ranks(below.subplots(), tuned.loc[ranks.index], ranks)
    return figure


def shown_methods(shares: pd.DataFrame) -> list[Shown]:
    """Return the lines of an upper panel, from the methods and settings that the table has."""
    lines = []
    for method, label in MAPS.items():
        settings = [*dict.fromkeys(shares[shares["method"] == method]["setting"])]
        nearest = [setting for setting in settings if setting in (OPTIMUM, *BEST)]
        if nearest:
            lines.append(Shown(f"{label}, nearest", method, nearest))
        for start, origin in STARTS.items():
            short = [s for s in settings if s.startswith(f"{start}/") and "_lr/" in s]
            if short:
                lines.append(Shown(f"{label}, {origin}", method, short))
    return lines


def _draw_targets(panels: SubFigure, shares: pd.DataFrame) -> None:
    """Draw a panel for each kNN-LM, with the same lines in each."""
    lines, colors = shown_methods(shares), {}
    every = panels.subplots(1, len(TARGETS), sharey=True)
    for axes, (target, title) in zip(every, TARGETS.items(), strict=True):
        of_target = shares[shares["target"] == target].set_index(["method", "setting"])
        for height, line in enumerate(lines):
            for number, setting in enumerate(line.settings):
                if (line.method, setting) in of_target.index:
                    place = height + APART * (number - (len(line.settings) - 1) / 2)
                    color, face = _style(setting, colors)
                    row = of_target.loc[(line.method, setting)]
                    _draw_point(axes, row, place, color=color, face=face)
        _mark_ends(axes.axvline)
        axes.set_title(title, fontsize=7)
        axes.set_xlim(LOWEST, HIGHEST)
        axes.tick_params(axis="y", length=0)
    every[0].set_yticks(range(len(lines)), [line.label for line in lines])
    every[0].set_ylim(len(lines) - 0.5, -0.5)
    every[len(every) // 2].set_xlabel("share of the perplexity gap recovered (LM 0, kNN-LM 1)")
    _draw_legend(panels, colors)


def _style(setting: str, colors: dict[str, str]) -> tuple[str, str]:
    """Return color and filling of a point; an optimizer with its stop gets the next color."""
    if setting == OPTIMUM or setting in BEST:
        return NEAREST, BEST.get(setting, "full")
    _, direction, walk = setting.split("/", 2)
    return colors.setdefault(walk, WALKS[len(colors) % len(WALKS)]), FACES[direction]


def _draw_point(axes: Axes, row: pd.Series, place: float, *, color: str, face: str) -> None:
    style = {"color": color, "fillstyle": face, "markersize": 3, "linestyle": "none"}
    edge = min(max(row["value"], LOWEST), HIGHEST)
    if edge == row["value"]:
        axes.hlines(place, row["ci_low"], row["ci_high"], color=color, linewidth=0.8)
        axes.plot(edge, place, marker="o", **style)
        return
    low = edge == LOWEST
    axes.plot(edge, place, marker="<" if low else ">", clip_on=False, **style)
    axes.annotate(
        f"{row['value']:.3g}",
        (edge, place),
        xytext=(5 if low else -5, 0),
        textcoords="offset points",
        color=color,
        fontsize=5,
        ha="left" if low else "right",
        va="center",
    )


def _draw_legend(panels: SubFigure, colors: dict[str, str]) -> None:
    def entry(color: str, face: str, label: str) -> Line2D:
        style = {"marker": "o", "markersize": 3.5, "linestyle": "none"}
        return Line2D([], [], color=color, fillstyle=face, label=label, **style)

    walks = [
        entry(color, "full", name.replace("_", " ").replace("/", ", "))
        for name, color in colors.items()
    ]
    directions = [
        entry(COLORS["lm"], "full", "by KL[p || f]"),
        entry(COLORS["lm"], "none", "by KL[f || p]"),
    ]
    panels.legend(
        handles=[*walks, *directions],
        loc="outside upper center",
        ncols=len(walks) + len(directions),
        frameon=False,
        fontsize=6,
        columnspacing=1.0,
        handletextpad=0.1,
    )


def _draw_ranks(axes: Axes, shares: pd.DataFrame, ranks: pd.Series) -> None:
    names = {setting: setting.removeprefix("optimum/") for setting in shares.index}
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
    low, high = axes.get_ylim()
    axes.set_ylim(max(LOWEST, low), min(HIGHEST, high))
    axes.set_xlabel("rank of W: the LM's head cut by SVD (line), heads of other models (squares)")
    axes.set_ylabel("share recovered\nat the certified optimum")


def _mark_ends(line: Callable[..., object]) -> None:
    """Draw the LM at 0 and the kNN-LM at 1."""
    for share, color in {0.0: COLORS["lm"], 1.0: COLORS["knn_lm"]}.items():
        line(share, color=color, linewidth=0.8, linestyle=(0, (4, 2)), zorder=0)
