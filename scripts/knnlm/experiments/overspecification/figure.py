"""The figure of overspecification: likelihood of children's names over epochs, by family size."""

from collections.abc import Mapping

import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from knnlm.evidence.plotting import FULL_WIDTH, Label, label_right
from knnlm.evidence.tables import over_seeds, select

HEIGHT = 2.7  # inches of a row of panels
PANELS_A_ROW = 3
STYLES = {"lm": "-", "knn_lm": ":"}
LEGEND = {"lm": "LM", "knn_lm": "LM + kNN", "theory": "perfect: log(1/n)"}
BAND = 0.08  # opacity; bands of five family sizes lie on each other
LEVEL_STYLE = (0, (4, 2))


def draw(tables: Mapping[str, pd.DataFrame]) -> Figure:
    """Return a panel for each model: the test template, a color for each number of children.

    Solid: the LM, dotted: LM + kNN, both means over seeds, with bands of Student's t; dashed: what
    a perfect model reaches. As Chiang et al. (2024), Figures 1 and 3.

    Args:
        tables: table, for the levels of theory, and curves.
    """
    test = select(over_seeds(tables["curves"]), split="test")
    models = list(dict.fromkeys(test["model"]))
    n_rows = -(-len(models) // PANELS_A_ROW)
    n_columns = min(len(models), PANELS_A_ROW)
    figure = Figure(figsize=(FULL_WIDTH, n_rows * HEIGHT), layout="constrained")
    panels = figure.subplots(n_rows, n_columns, sharey=True, squeeze=False)
    sizes = sorted({int(n) for n in test["n_children"]} - {0})  # 0: families of any size
    dark = sns.color_palette("viridis", len(sizes) + 2)[: len(sizes)]  # the light ones hide text
    colors = dict(zip(sizes, dark, strict=True))
    theory = select(tables["table"], method="theory")
    for axes, model in zip(panels.flat, models, strict=False):
        for size in sizes:
            level = _levels(theory, [size])[size]
            axes.axhline(level, color=colors[size], linewidth=0.8, linestyle=LEVEL_STYLE)
            _draw_lines(axes, test, model=model, size=size, color=colors[size])
        axes.set_title(model)
        axes.set_xlabel("epoch")
    for axes in list(panels.flat)[len(models) :]:
        axes.set_axis_off()
    for axes in panels[:, 0]:
        axes.set_ylabel("log-likelihood of the child's name (nats)")
    levels = _levels(theory, sizes)
    names = [Label(levels[n], f"n = {n}", colors[n]) for n in sizes]
    label_right(panels[0, -1], names, gap=0.05)
    lines = {name: Line2D([], [], color="black", linestyle=STYLES[name]) for name in STYLES}
    lines["theory"] = Line2D([], [], color="black", linewidth=0.8, linestyle=LEVEL_STYLE)
    labels = [LEGEND[name] for name in lines]
    place = {"loc": "outside upper center", "ncols": len(lines)}
    figure.legend(lines.values(), labels, frameon=False, fontsize="medium", **place)
    return figure


def _levels(theory: pd.DataFrame, sizes: list[int]) -> dict[int, float]:
    """Return what a perfect model reaches, by number of children."""
    suffixes = {size: f"/{size} child{'ren' * (size > 1)}" for size in sizes}
    return {
        size: theory.loc[theory["setting"].str.endswith(suffix), "value"].item()
        for size, suffix in suffixes.items()
    }


def _draw_lines(
    axes: Axes,
    test: pd.DataFrame,
    *,
    model: str,
    size: int,
    color: tuple[float, float, float],
) -> None:
    """Draw the curves of one model and family size; one seed has no band."""
    rows = test[(test["model"] == model) & (test["n_children"] == size)]
    for method, style in STYLES.items():
        line = select(rows, method=method)
        axes.plot(line["epoch"], line["value"], color=color, linestyle=style)
        axes.fill_between(
            line["epoch"], line["ci_low"], line["ci_high"], color=color, alpha=BAND, linewidth=0
        )
