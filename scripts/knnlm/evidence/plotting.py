"""Figures: one look, one color a method, the same bytes every time.

A figure is drawn from tables alone, so that a new look costs no computation.
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import matplotlib as mpl
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from knnlm.runtime.artifacts import atomic_path

FULL_WIDTH = 7.0  # inches: both columns of an ACL page
COLUMN_WIDTH = 3.3
PNG_DPI = 200

# Okabe and Ito (2008): told apart with every common color blindness
COLORS = {"lm": "#4d4d4d", "knn_lm": "#0072b2", "control": "#d55e00", "mlp": "#009e73"}
# What is no method (splits, optimizers, variants of a model) never has the color of one.
OTHERS = ("#a6568c", "#b07d00", "#4b3f9e")
REFERENCE = "#8a8a8a"  # levels that are read off, not compared
LABELS = {"lm": "LM", "knn_lm": "kNN-LM", "control": "LM, trained longer", "mlp": "LM + MLP"}

LOOK = {
    "font.family": "DejaVu Sans",  # comes with matplotlib, so it is the same everywhere
    "font.size": 7,
    "axes.labelsize": 7,
    "axes.titlesize": 7,
    "xtick.labelsize": 6.5,
    "ytick.labelsize": 6.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.major.size": 2.5,
    "ytick.major.size": 2.5,
    "lines.linewidth": 1.3,
    "svg.hashsalt": "macondo",  # element ids follow from the drawing, not from chance
    "svg.fonttype": "path",
}


class Label(NamedTuple):
    """A text beside the curve that it names, at the height where the curve ends."""

    height: float
    text: str
    color: str


@contextmanager
def look() -> Iterator[None]:
    """Draw with the look of all figures; the settings of the caller come back afterwards."""
    rc = sns.axes_style("ticks") | sns.plotting_context("paper") | LOOK
    with mpl.rc_context(rc):
        yield


def save_figure(figure: Figure, *, svg: Path, png: Path) -> None:
    """Write a figure as SVG and PNG, atomically, without dates: the same figure, the same bytes.

    Call it inside `look()`: the ids in the SVG depend on its salt.
    """
    with atomic_path(svg) as temporary:
        figure.savefig(temporary, format="svg", metadata={"Date": None, "Creator": None})
    with atomic_path(png) as temporary:
        figure.savefig(temporary, format="png", dpi=PNG_DPI, metadata={"Software": None})


def draw_levels(axes: Axes, rows: pd.DataFrame, *, label: str) -> None:
    """Draw one level a row from top to bottom, with its interval; a dashed line for the LM's.

    Args:
        axes: empty.
        rows: of one metric in a tidy table, the LM's and one for each other setting.
        label: of the metric.
    """
    lm = rows["method"] == "lm"
    axes.axvline(rows[lm]["value"].item(), color=COLORS["lm"], linewidth=1.0, linestyle=(0, (4, 2)))
    for _, row in rows[~lm].iterrows():
        place, color = row["setting"].replace("_", " "), COLORS[row["method"]]
        axes.plot([row["ci_low"], row["ci_high"]], [place, place], color=color, linewidth=1.0)
        axes.plot(row["value"], place, "o", color=color, markersize=4)
    axes.invert_yaxis()
    axes.tick_params(axis="y", length=0)
    axes.set_xlabel(label)
    axes.set_title("dashed: the LM alone", loc="right", color=COLORS["lm"])


def label_right(axes: Axes, labels: Sequence[Label], *, gap: float = 0.075) -> None:
    """Write labels right of the axes, each at its height, moved apart where they would touch.

    Args:
        axes: with its final limits on the y axis, linear or logarithmic.
        labels: at least one.
        gap: least distance of two labels, as a share of the axes' height.
    """
    scaled = math.log if axes.get_yscale() == "log" else float
    low, high = map(scaled, axes.get_ylim())
    ordered = sorted(labels, key=lambda label: label.height)
    shares = [(scaled(label.height) - low) / (high - low) for label in ordered]
    for label, share in zip(ordered, moved_apart(shares, gap), strict=True):
        axes.text(1.03, share, label.text, color=label.color, va="center", transform=axes.transAxes)


def moved_apart(heights: Sequence[float], gap: float) -> list[float]:
    """Return ascending heights moved apart to at least `gap`, groups kept around their middle.

    Args:
        heights: ascending.
        gap: least distance of two neighbors.
    """
    groups: list[list[float]] = []  # each [first, last, number of labels]
    for height in heights:
        groups.append([height, height, 1])
        while len(groups) > 1 and groups[-1][0] - groups[-2][1] < gap:
            first, last, n = groups.pop()
            before = groups.pop()
            total = before[2] + n
            middle = (before[2] * (before[0] + before[1]) + n * (first + last)) / (2 * total)
            half = gap * (total - 1) / 2
            groups.append([middle - half, middle + half, total])
    return [first + gap * i for first, _, n in groups for i in range(int(n))]
