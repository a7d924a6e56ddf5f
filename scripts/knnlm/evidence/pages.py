"""Pages from templates that lie in this folder, with one look and numbers in one form."""

from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from knnlm.evidence.verdict import number

HERE = Path(__file__).parent
BLANKS = {" ": "\u00b7", "\n": "\u21b5", "\t": "\u2192"}  # so that spaces are seen


def render(template: str, **context: Any) -> str:
    """Return a page from a template below this folder; its look and scripts stand in it."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE),
        undefined=jinja2.StrictUndefined,
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "number": number,
        "bytes": as_bytes,
        "duration": as_duration,
        "percent": percent,
        "visible": visible,
    }
    environment.globals["raw"] = lambda name: Markup((HERE / name).read_text(encoding="utf-8"))
    return environment.get_template(template).render(**context)


def as_bytes(count: float) -> str:
    """Return bytes with a binary unit: 1.2 GiB."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:,.3g} {unit}" if unit != "B" else f"{count:,.0f} B"
        count /= 1024
    return f"{count:,.4g} TiB"


def as_duration(seconds: float) -> str:
    """Return seconds as 8.3 s, 2 min 05 s or 3 h 20 min."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def visible(text: str) -> str:
    """Return a token with its blanks as signs."""
    return "".join(BLANKS.get(character, character) for character in text) or "\u2205"


def percent(p: float) -> str:
    """Return a probability in percent with a few digits: 0.04 %."""
    if p == 0:
        return "0 %"
    return "< 0.01 %" if p < 1e-4 else f"{100 * p:.3g} %"
