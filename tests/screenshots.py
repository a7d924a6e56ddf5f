"""Take the screenshots of docs/images from a finished run: python tests/screenshots.py results/RUN.

Needs Chromium; the pictures are not compared by any test, so take them again when the look changes.
"""

import sys
from pathlib import Path

from browser import open_page

IMAGES = Path(__file__).parents[1] / "docs" / "images"
SHOTS = {  # name: page, width, height, color scheme
    "report": ("index.html", 1100, 820, "light"),
    "report-phone": ("index.html", 375, 760, "dark"),
    "explorer": ("explorer.html", 1280, 820, "light"),
}


def main(run: Path) -> None:
    """Take every picture; in the explorer after a click on a token that kNN predicts better."""
    for name, (file, width, height, scheme) in SHOTS.items():
        page = run / "report" / file
        with open_page(page.resolve(), width=width, height=height, color_scheme=scheme) as opened:
            if file == "explorer.html":
                opened.locator("a.tok.knn-2").nth(2).click()
            opened.screenshot(path=IMAGES / f"{name}.png")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
