"""The HTML page in Chromium, driven by Playwright."""

from __future__ import annotations

import random
import shutil
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from pytest_rwkvperf.history import address, trends
from pytest_rwkvperf.history import page as page_of_trends
from pytest_rwkvperf.reports import figures, html
from tests.integration.conftest import lacking
from tests.unit.building import CASE, make_record, make_run, recorded, report_record
from tests.unit.history.conftest import stored
from tests.unit.history.test_trends import runs_with_step
from tests.unit.reports.test_html import h200_record, hostile_record

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from playwright.sync_api import Browser, Page

    from pytest_rwkvperf.store.record import Record


CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
CHARTS = ("speed-prefill", "speed-generation", "ratio", "samples", "probes", "spread", "memory", "parity")
HARDWARE = ("roofline", "energy", "gpu-memory", "busy")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if CHROMIUM is None:
        lacking("Chromium is not installed: apt-get install chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        # Root has no sandbox; the pages are this project's own.
        one = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield one
        one.close()


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("page") / "report.html"
    path.write_text(html.REPORT.render(hostile_record(), "en")[""], encoding="utf-8")
    return path


def opened(
    browser: Browser, path: Path, theme: str = "light", width: int = 1200, charts: Sequence[str] = CHARTS
) -> tuple[Page, list[str]]:
    """A page with its charts drawn, and its console messages, errors and requests."""
    page = browser.new_page(viewport={"width": width, "height": 800}, color_scheme=theme)  # type: ignore[arg-type]
    heard: list[str] = []
    page.on("console", lambda message: heard.append(f"{message.type}: {message.text}"))
    page.on("pageerror", lambda error: heard.append(str(error)))
    page.on("request", lambda request: heard.append(request.url))
    page.on("dialog", lambda dialog: heard.append(dialog.message))
    page.goto(path.as_uri())
    draw(page, charts)
    return page, heard


def draw(page: Page, charts: Sequence[str] = CHARTS) -> None:
    for name in charts:
        page.locator(f"#{name}").scroll_into_view_if_needed()
        page.wait_for_selector(f"#{name}[data-drawn]")


@pytest.mark.parametrize(("theme", "width"), [("light", 1200), ("dark", 1200), ("light", 360), ("dark", 360)])
def test_page_draws_in_every_theme_and_width_without_messages_or_requests(
    browser: Browser, path: Path, theme: str, width: int
) -> None:
    page, heard = opened(browser, path, theme, width)
    assert heard == [path.as_uri()]
    assert "RWKV-7 throughput" in page.title()
    drawn = page.eval_on_selector_all(".chart", "all => all.map(one => [one.id, one.dataset.drawn])")
    assert drawn == [[name, "yes"] for name in sorted(CHARTS, key=[one[0] for one in drawn].index)]
    # Wider than the screen are only the tables, in boxes that scroll.
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    back, text = page.evaluate("(s => [s.backgroundColor, s.color])(getComputedStyle(document.body))")
    assert (sum(map(int, back[4:-1].split(","))) > 384) == (theme == "light")
    assert (sum(map(int, text[4:-1].split(","))) < 384) == (theme == "light")
    page.close()


def test_tables_and_charts_show_the_records_figures(browser: Browser, path: Path) -> None:
    page, _ = opened(browser, path)
    rates = [item.rate.median for _, item in hostile_record().items() if item.rate]
    cells = page.eval_on_selector_all(
        "#figures tbody tr td:nth-child(5)", "all => all.map(one => [one.dataset.value, one.textContent])"
    )
    assert [float(value) for value, _ in cells if value] == rates
    assert [text for _, text in cells if text] == [figures.speed(one) for one in rates]
    drawn = [
        one["rate"]
        for kind in ("prefill", "generation")
        for one in page.evaluate(f"document.getElementById('speed-{kind}').view.data('figures')")
    ]
    assert sorted(drawn) == sorted(
        item.typical_rate.median for _, item in hostile_record().items() if item.typical_rate
    )
    page.close()


def with_device_times(record: Record) -> Record:
    """The record predates device times: 90 % of the driver's utilisation stands in for them."""
    items = [
        tuple(replace(one, device_share=one.utilisation and 0.9 * one.utilisation) for one in case.items)
        for case in record.cases
    ]
    return replace(record, cases=tuple(replace(case, items=own) for case, own in zip(record.cases, items, strict=True)))


@pytest.mark.parametrize(("theme", "width"), [("light", 1200), ("dark", 360)])
def test_gpu_charts_show_the_records_figures(browser: Browser, tmp_path: Path, theme: str, width: int) -> None:
    record = with_device_times(h200_record())
    path = tmp_path / "h200.html"
    path.write_text(html.REPORT.render(record, "en")[""], encoding="utf-8")
    page, heard = opened(browser, path, theme, width, HARDWARE)
    assert heard == [path.as_uri()]
    assert page.evaluate("document.documentElement.scrollWidth") <= width

    def drawn(chart: str, field: str) -> list[float]:
        return [float(one[field]) for one in page.evaluate(f"document.getElementById('{chart}').view.data('figures')")]

    items = [item for _, item in record.items()]
    assert drawn("roofline", "share") == [one.roofline_share for one in items]
    assert drawn("energy", "joules") == [one.joules_per_token for one in items]
    assert drawn("energy", "net_joules") == [one.net_joules_per_token for one in items]
    assert drawn("busy", "busy") == [one.utilisation for one in items]
    assert drawn("busy", "device") == [one.device_share for one in items]
    peaks = [one.figures.peak_device_bytes for one in record.cases if one.figures]
    assert drawn("gpu-memory", "gpu_mib") == [peak / 2**20 for peak in peaks if peak]
    cells = page.eval_on_selector_all(
        "#hardware tbody tr", "all => all.map(row => [...row.children].slice(5).map(one => one.dataset.value))"
    )
    assert [[float(one) for one in row] for row in cells] == [
        [item.roofline_share, item.joules_per_token, item.net_joules_per_token, item.utilisation,
         item.device_share, case.figures and case.figures.peak_device_bytes]
        for case, item in record.items()
    ]  # fmt: skip
    page.select_option("[data-filter=backend]", "web-rwkv")
    draw(page, HARDWARE)
    assert drawn("busy", "busy") == [one.utilisation for one in items[-2:]]
    assert page.locator("#hardware tbody tr:visible").count() == 2
    assert heard == [path.as_uri()]
    page.close()


def test_page_works_by_keyboard(browser: Browser, path: Path) -> None:
    page, heard = opened(browser, path)
    page.evaluate("scrollTo(0, 0); document.activeElement.blur()")
    focused = "document.activeElement.className || document.activeElement.dataset.filter"
    reached = []
    for _ in range(4):
        page.keyboard.press("Tab")
        reached.append(page.evaluate(focused))
    assert reached == ["skip", "backend", "workload", "verdict"]
    page.locator("#figures th:nth-child(5) button").focus()
    for way in (1, -1):
        page.keyboard.press("Enter")
        values = page.eval_on_selector_all("#figures tbody td:nth-child(5)", "all => all.map(one => one.dataset.value)")
        known = [float(one) for one in values if one]
        assert known == sorted(known, reverse=way < 0)
        assert values[-2:] == ["", ""]
    assert heard == [path.as_uri()]
    page.close()


def test_filters_and_theme_redraw_the_charts(browser: Browser, path: Path) -> None:
    page, heard = opened(browser, path)
    page.select_option("[data-filter=backend]", "llama-cpp")
    draw(page)
    assert page.locator("#figures tbody tr:visible").count() == 2
    shown = page.evaluate("document.getElementById('speed-prefill').view.data('figures').map(one => one.backend)")
    assert shown == ["llama-cpp"]
    before = page.locator("#speed-prefill svg").inner_html()
    page.emulate_media(color_scheme="dark")
    draw(page)
    assert page.locator("#speed-prefill svg").inner_html() != before
    page.select_option("#sample-item", index=1)
    draw(page)
    assert page.evaluate("document.getElementById('samples').view.data('samples').length") == 8
    assert page.locator("#probes").text_content() == "Nothing to show."
    assert heard == [path.as_uri()]
    page.close()


def test_trends_draw_without_messages(browser: Browser, tmp_path: Path) -> None:
    place = address.parse("history.db", tmp_path)
    found = [trends.trend(*one, 0.01) for one in stored(place, runs_with_step(24, 24)).series().items()]
    path = tmp_path / "trend.html"
    path.write_text(page_of_trends.render(found, place.shown), encoding="utf-8")
    page = browser.new_page(color_scheme="dark")
    heard: list[str] = []
    page.on("console", lambda message: heard.append(message.text))
    page.on("pageerror", lambda error: heard.append(str(error)))
    page.goto(path.as_uri())
    page.wait_for_selector("#trend-0[data-drawn=yes]")
    drawn = page.evaluate("document.getElementById('trend-0').view.data('points').map(one => one.rate)")
    assert drawn == [point.tokens_per_second for point in found[0].points]
    assert heard == []
    page.close()


def test_500_workloads_take_under_6_mb_and_2_seconds(browser: Browser, tmp_path: Path) -> None:
    source = random.Random(1)
    names = [f"pp{16 + index}" for index in range(10)] + [f"tg{4 + index}" for index in range(10)]
    cases = []
    for number in range(25):
        taken = [{name: [source.randrange(10**8, 2 * 10**8) for _ in range(10)] for name in names} for _ in range(20)]
        runs = [make_run(**times) for times in taken]  # type: ignore[arg-type]
        case = recorded(make_record(*runs, case=replace(CASE, quant=f"q{number}")))
        items = tuple(
            replace(one, joules_per_token=1.5, net_joules_per_token=0.5, utilisation=0.9, roofline_share=0.1)
            for one in case.items
        )
        cases.append(replace(case, items=items))
    path = tmp_path / "large.html"
    path.write_text(html.REPORT.render(report_record(*cases), "en")[""], encoding="utf-8")
    assert path.stat().st_size < 6_000_000
    page = browser.new_page()
    devtools = page.context.new_cdp_session(page)
    devtools.send("Performance.enable", {"timeDomain": "threadTicks"})  # other work here is no property of the page
    page.goto(path.as_uri())
    page.wait_for_selector("#speed-prefill[data-drawn=yes]")
    spent = {one["name"]: one["value"] for one in devtools.send("Performance.getMetrics")["metrics"]}
    assert page.locator("#figures tbody tr").count() == 500
    assert page.locator("#hardware tbody tr").count() == 500
    page.close()
    assert 0.1 < spent["TaskDuration"] < 2
