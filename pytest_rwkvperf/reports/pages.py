"""HTML pages that need no network: templates of `page/` with one style sheet and one short script.

A page is complete without its script, which only sorts and filters. No string of a record becomes markup or code:
templates escape, and the page's Content-Security-Policy allows no script but the one whose hash it lists.
"""

from __future__ import annotations

import base64
import hashlib
import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_rwkvperf.core.errors import OptionError
from pytest_rwkvperf.reports import figures, plots, wording

if TYPE_CHECKING:
    from collections.abc import Mapping

_FOLDER = Path(__file__).with_name("page")


def check_installed() -> None:
    """Check that the library of HTML pages is installed.

    Raises:
        OptionError: it is missing.
    """
    if importlib.util.find_spec("jinja2") is None:
        raise OptionError("HTML pages need Jinja2, which is not installed: pip install jinja2")


def render(template: str, context: Mapping[str, Any]) -> str:
    """Render a template of `page/`.

    Raises:
        OptionError: Jinja2 is not installed.
    """
    check_installed()
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_FOLDER),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals.update(_FORMS)
    script = (_FOLDER / "page.js").read_text(encoding="utf-8")
    style = (_FOLDER / "page.css").read_text(encoding="utf-8")
    return environment.get_template(template).render(**context, style=style, script=script, policy=_policy(script))


def _policy(script: str) -> str:
    """A Content-Security-Policy that fetches nothing and allows only this script."""
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return f"default-src 'none'; style-src 'unsafe-inline'; img-src data:; script-src 'sha256-{digest}'"


_FORMS = {
    "plain": lambda value: "" if value is None else str(value),
    "speed": figures.speed,
    "ratio": figures.ratio,
    "percent": wording.percent,
    "parity": figures.parity,
    "change": wording.change,
    "changes": wording.changes,
    "share": wording.share,
    "count": wording.count,
    "milliseconds": lambda value: figures.number(value, ".2f", scale=1e3),
    "seconds": lambda value: figures.number(value, ".2f"),
    "mebibytes": lambda value: wording.plain_number(round(value / 2**20)),
    "joules": lambda value: figures.number(value, ".3g"),
    "tera": lambda value: figures.number(value, ".3g", scale=1e-12),
    "plus_minus": wording.plus_minus,
    "plain_number": wording.plain_number,
    "tick_change": wording.tick_change,
    "axis_ticks": plots.ticks,
}
"""How templates write and draw figures, None as an empty text. Units are in the headings."""
