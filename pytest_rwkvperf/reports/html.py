"""The record as one HTML page that needs no network: `--rwkv-report=report.html`.

The page answers first whether something got slower, then shows every workload against its baseline, the worst first,
then speeds side by side; the rest is folded. A part of the page is a `Section`: a function of a module in
`sections/`, which says what it shows, and a template in `page/sections/`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pytest_rwkvperf.reports import headline, pages
from pytest_rwkvperf.reports.report import Report
from pytest_rwkvperf.reports.sections import (
    answers,
    hardware,
    invariants,
    memory,
    scaling,
    shown,
    speed,
    tables,
    workloads,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from pytest_rwkvperf.reports.report import Language
    from pytest_rwkvperf.reports.sections.shown import Shown
    from pytest_rwkvperf.store.record import Record


@dataclass(frozen=True, slots=True)
class Section:
    """A part of the page. It is left out where `content` gives None; else the template has that as `content`."""

    template: str
    content: Callable[[Shown], object | None]


SECTIONS = (
    Section("comparison.html.jinja", workloads.compared_rows),
    Section("speed.html.jinja", speed.speeds),
    Section("batches.html.jinja", scaling.scaling),
    Section("invariants.html.jinja", invariants.invariants),
    Section("rows.html.jinja", workloads.uncompared_rows),
    Section("memory.html.jinja", memory.memory),
    Section("answers.html.jinja", answers.answers),
    Section("hardware.html.jinja", hardware.hardware),
    Section("figures.html.jinja", tables.tables),
    Section("run.html.jinja", tables.conditions),
)
"""In the order of the page."""


class Html(Report):
    """One HTML file."""

    def check(self) -> None:
        """Check that the page's library is installed.

        Raises:
            OptionError: it is missing.
        """
        pages.check_installed()

    def render(self, record: Record, _language: Language, /) -> Mapping[str, str]:
        """The whole page, also of a run that measured nothing."""
        content = shown.Shown.of(record.disambiguated())
        found = [(section.template, section.content(content)) for section in SECTIONS]
        context = {
            "record": content.record,
            "headline": headline.of(content.record),
            "facts": shown.facts(content),
            "troubles": shown.troubles(content),
            "sections": [(f"sections/{template}", content) for template, content in found if content is not None],
        }
        return {"": pages.render("report.html.jinja", context)}


REPORT = Html()
