"""Captions and figures as HTML: one source of each, made safe to stand on one page.

A caption is reStructuredText with settings of the run in it, such as {{ search.k }}. A figure is
the SVG that the plot wrote, inlined.
"""

import re
from collections.abc import Mapping
from html import escape, unescape
from pathlib import Path
from typing import Any

import jinja2
from docutils.core import publish_parts
from markupsafe import Markup

QUIET = {
    "file_insertion_enabled": False,
    "raw_enabled": False,
    "report_level": 2,
    "halt_level": 2,  # a warning is an error: a broken caption stops the report, by name
    "embed_stylesheet": False,
}
SVG_IDS = re.compile(r'(\bid="|href="#|url\(#)')
SVG_SIZE = re.compile(r'<svg ([^>]*?)width="[\d.]+pt" height="[\d.]+pt" ')


def caption_html(path: Path, settings: Mapping[str, Any]) -> Markup:
    """Return a caption as HTML paragraphs.

    Args:
        path: a file of reStructuredText with jinja2 fields, which are settings: {{ corpus }}.
        settings: the merged settings of the run.

    Raises:
        ValueError: naming the file, if a setting that it shows does not exist or its markup is
            wrong.
    """
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, autoescape=False)
    try:
        text = environment.from_string(path.read_text(encoding="utf-8")).render(settings)
        parts = publish_parts(text, writer="html5", settings_overrides=QUIET)
    except Exception as error:  # jinja2 and docutils each have their own
        raise ValueError(
            f"the caption {path} cannot be rendered ({error}); mend it and run snakemake again"
        ) from error
    return Markup(parts["body"])


def first_sentence(caption: str) -> str:
    """Return the first sentence of a caption as plain text: what a figure shows."""
    text = unescape(re.sub(r"<[^>]+>", "", caption))
    return re.split(r"(?<=\.)\s", " ".join(text.split()), maxsplit=1)[0]


def inline_svg(path: Path, *, label: str) -> Markup:
    """Return an SVG that can stand on a page beside others, with a text for those who hear it.

    Every id gets the figure's name before it: matplotlib gives equal glyphs equal ids in every
    figure. The size follows the page.

    Args:
        path: of the figure; its name is the prefix of its ids.
        label: what it shows.

    Raises:
        ValueError: naming the file, if it is not an SVG of matplotlib.
    """
    source = path.read_text(encoding="utf-8")
    start = source.find("<svg")
    if start < 0 or not SVG_SIZE.search(source):
        raise ValueError(
            f"expected {path} to be an SVG with a size in pt; remove it and run snakemake again"
        )
    body = re.sub(r"<metadata>.*?</metadata>", "", source[start:], flags=re.DOTALL)
    body = SVG_IDS.sub(rf"\g<1>{path.stem}-", body)
    head = rf'<svg role="img" aria-label="{escape(label, quote=True)}" \g<1>'
    return Markup(SVG_SIZE.sub(head, body, count=1))
