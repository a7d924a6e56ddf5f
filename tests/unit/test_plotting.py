"""Figures: same bytes, labels apart, no torch."""

import itertools
import subprocess
import sys
from pathlib import Path

import matplotlib as mpl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from knnlm.evidence.plotting import (
    COLORS,
    LABELS,
    Label,
    label_right,
    look,
    moved_apart,
    save_figure,
)

SCRIPTS = Path(__file__).parents[2] / "scripts"
DRAW = """
import sys
from pathlib import Path
from matplotlib.figure import Figure
from knnlm.evidence.plotting import look, save_figure
with look():
    figure = Figure(figsize=(2, 1), layout="constrained")
    axes = figure.subplots()
    axes.plot([1, 2], [3, 4], clip_on=True)
    axes.set_xlabel("k")
    folder = Path(sys.argv[1])
    save_figure(figure, svg=folder / "a.svg", png=folder / "a.png")
assert "torch" not in sys.modules
"""


def draw_in_a_new_process(folder):
    folder.mkdir()
    subprocess.run([sys.executable, "-c", DRAW, str(folder)], cwd=SCRIPTS, check=True)
    return [(folder / name).read_bytes() for name in ("a.svg", "a.png")]


def test_the_same_figure_has_the_same_bytes_in_another_process_and_needs_no_torch(tmp_path):
    first = draw_in_a_new_process(tmp_path / "1")

    assert draw_in_a_new_process(tmp_path / "2") == first
    assert first[0].startswith(b"<?xml")
    assert first[1].startswith(b"\x89PNG")


def test_a_figure_names_no_date_and_no_program(tmp_path):
    with look():
        save_figure(Figure(), svg=tmp_path / "a.svg", png=tmp_path / "a.png")

    text = (tmp_path / "a.svg").read_text()
    assert "dc:date" not in text
    assert "Matplotlib v" not in text
    assert b"Software" not in (tmp_path / "a.png").read_bytes()


def test_the_look_ends_with_its_block():
    before = mpl.rcParams["font.size"]

    with look():
        assert mpl.rcParams["font.size"] == 7

    assert mpl.rcParams["font.size"] == before


def test_every_method_has_a_label_and_a_color_of_its_own():
    assert COLORS.keys() == LABELS.keys()
    assert len({to_rgb(color) for color in COLORS.values()}) == len(COLORS)


@given(
    st.lists(st.floats(0, 1), min_size=1, max_size=6).map(sorted),
    st.floats(0.01, 0.3),
)
def test_labels_end_apart_in_order_and_move_only_where_they_must(heights, gap):
    moved = moved_apart(heights, gap)

    distances = [b - a for a, b in itertools.pairwise(moved)]
    assert all(distance >= gap - 1e-9 for distance in distances)
    assert sum(moved) == pytest.approx(sum(heights), abs=1e-9)
    if all(b - a >= gap for a, b in itertools.pairwise(heights)):
        assert moved == pytest.approx(heights)


def test_labels_stand_at_the_height_of_their_curves():
    axes = Figure().subplots()
    axes.set_ylim(10, 20)

    label_right(axes, [Label(19.0, "LM", "black"), Label(12.5, "kNN-LM", "blue")])

    placed = {text.get_text(): text.get_position()[1] for text in axes.texts}
    assert placed == {"LM": pytest.approx(0.9), "kNN-LM": pytest.approx(0.25)}
