"""The form of every benchmark: one table of ours, a peer or bound, their ratio and the goal."""

from typing import NamedTuple


class Row(NamedTuple):
    """One comparison.

    Attributes:
        what: is measured, with its unit.
        ours: the value; None where only a number was found.
        peer: of the peer, or a bound.
        goal: for ours / peer, such as ">= 2.5"; empty where there is none.
        inverted: take peer / ours as the ratio: for seconds against a peer's.
    """

    what: str
    ours: float
    peer: float
    goal: str = ""
    inverted: bool = False

    @property
    def ratio(self) -> float:
        """How ours compares; which way, says `inverted`."""
        return self.peer / self.ours if self.inverted else self.ours / self.peer

    @property
    def verdict(self) -> str:
        """Return the goal and whether it is met."""
        if not self.goal:
            return ""
        sign, _, bound = self.goal.partition(" ")
        met = self.ratio >= float(bound) if sign == ">=" else self.ratio <= float(bound)
        return f"{self.goal}: {'met' if met else 'missed'}"


def print_table(title: str, rows: list[Row], *notes: str) -> None:
    """Print a heading, the table in Markdown, and what a reader must know to read it."""
    print(f"\n### {title}\n\n| what | ours | peer or bound | ratio | goal |")
    print("|---|---:|---:|---:|---|")
    for row in rows:
        print(
            f"| {row.what} | {number(row.ours)} | {number(row.peer)} | {row.ratio:.2f} "
            f"| {row.verdict} |"
        )
    for note in notes:
        print(f"\n{note}")


def number(value: float) -> str:
    """Return a value with three digits that count, or all before the point."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
