from __future__ import annotations

import base64
import hashlib
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from pytest_rwkvperf.core.errors import OptionError
from pytest_rwkvperf.reports import formats, html, report_files
from pytest_rwkvperf.reports.figures import STEPS
from pytest_rwkvperf.store import record
from pytest_rwkvperf.store.record import Record, SkippedEngine
from tests.unit.building import CASE, make_record, make_run, recorded, report_record, slower

HOSTILE = "</script><script>document.title='taken'</script><img src=x onerror=alert(1)>{{7*7}}&\"'"


def h200_record() -> Record:
    """Four cases of runs on NVIDIA H200s (see benchmarks/gpu) joined into one record.

    Left out: the times of single tokens and nine of ten readings of the driver, to keep the file small.
    """
    return record.read(Path(__file__).with_name("h200_record.json"))


def hostile_record() -> Record:
    """Two engines, one with an old side, one that died; strings that would be code."""
    run = make_run(pp16=[10**7, 11 * 10**6], tg4=[4 * 10**7, 5 * 10**7])
    run = replace(run, probes={"pp16": (5_000_000, 6_000_000)})
    other = make_run(pp16=[12 * 10**6, 13 * 10**6], tg4=[6 * 10**7, 7 * 10**7])
    measured = make_record(run, other)
    bad = replace(CASE, backend="scripted", quant=HOSTILE)
    failed = replace(recorded(make_record(run, case=bad)), measured=None, figures=None, failure=f"died: {HOSTILE}")
    failed = replace(failed, items=tuple(replace(one, rate=None, verdict=None, reason=HOSTILE) for one in failed.items))
    return report_record(
        recorded(measured, old=slower(measured, 2.0)),
        recorded(make_record(run, run, case=bad)),
        failed,
        command=("-k", HOSTILE),
        skipped=(SkippedEngine("web-rwkv", HOSTILE),),
    )


class Parsed(HTMLParser):
    """The page's tables as rows of (text, value), its scripts, and everything that would be fetched."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.rows: list[list[tuple[str, str | None]]] = []
        self.scripts: list[tuple[dict[str, str | None], str]] = []
        self.fetched: list[str] = []
        self.tags: set[str] = set()
        self._within = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self._within = tag
        self.fetched += [
            str(value) for name, value in attrs if name in {"src", "href"} and not str(value).startswith("#")
        ]
        if tag == "tr":
            self.rows.append([])
        if tag == "td":
            self.rows[-1].append(("", dict(attrs).get("data-value")))
        if tag == "script":
            self.scripts.append((dict(attrs), ""))

    def handle_endtag(self, tag: str) -> None:
        if tag == self._within:
            self._within = ""

    def handle_data(self, data: str) -> None:
        if self._within == "td":
            text, value = self.rows[-1][-1]
            self.rows[-1][-1] = (text + data, value)
        if self._within == "script":
            self.scripts[-1] = (self.scripts[-1][0], self.scripts[-1][1] + data)

    def data(self, name: str) -> Any:  # noqa: ANN401 - JSON
        (text,) = (text for attributes, text in self.scripts if attributes.get("id") == name)
        return json.loads(text)


@pytest.fixture(scope="module")
def page() -> str:
    return html.REPORT.render(hostile_record(), "en")[""]


@pytest.fixture(scope="module")
def parsed(page: str) -> Parsed:
    return Parsed(page)


def test_every_figure_of_the_record_is_in_the_table(parsed: Parsed) -> None:
    taken = hostile_record()
    rows = [row for row in parsed.rows if len(row) == 15]
    assert len(rows) == 6
    for row, (case, item) in zip(rows, taken.items(), strict=True):
        assert [text for text, _ in row[:4]] == [case.case.backend, case.case.quant, case.case.device, item.workload]
        values = [value for _, value in row[4:12]]
        rate, ratio = item.rate, item.comparison
        assert ratio is not None
        figures = [rate.median, rate.low, rate.high] if rate else [None] * 3
        assert item.baseline is not None
        figures += [item.baseline.median, ratio.ratio, ratio.low, ratio.high, ratio.detectable]
        assert values == ["" if one is None else str(one) for one in figures]
        assert row[12][0] == STEPS[item.step]
        assert row[13][0] == (item.verdict or "not judged")
        assert row[14][0] == item.reason


def test_charts_get_the_records_figures(parsed: Parsed) -> None:
    taken = hostile_record()
    items, samples = parsed.data("data")["items"], parsed.data("samples-data")
    rates = [item.typical_rate for _, item in taken.items()]
    assert [one["rate"] for one in items] == [rate.median if rate else None for rate in rates]
    measured, old = taken.cases[0].measured, taken.cases[0].old
    assert measured is not None
    assert old is not None
    first = samples[0]
    assert sorted(zip(first["side"], first["rate"], strict=True)) == sorted(
        (side, float(f"{16 / one.nanoseconds * 1e9:.5g}"))
        for side, own in (("this run", measured), ("old", old))
        for run in own.runs
        for one in run.samples["pp16"]
    )
    assert first["at"] == sorted(first["at"])
    assert set(first["probe"]) == {5.0, 6.0, -1}
    assert set(samples[1]["probe"]) == {-1}
    assert samples[4]["at"] == []


def test_gpu_and_roofline_charts_only_with_their_figures() -> None:
    measured = recorded(make_record(make_run(pp16=[10**7])))
    shared = replace(measured, items=tuple(replace(one, roofline_share=0.5) for one in measured.items))
    charts = {"roofline", "energy", "gpu-memory", "busy"}
    for one, expected in ((measured, set()), (shared, {"roofline"})):
        text = html.REPORT.render(report_record(one), "en")[""]
        assert {name for name in charts if f'id="{name}"' in text} == expected


def test_ceilings_and_driver_warnings_are_shown() -> None:
    taken = h200_record()
    (case, *_) = taken.cases
    assert case.measured is not None
    assert case.measured.gpu is not None
    busy = replace(case.measured.gpu, before=replace(case.measured.gpu.before, utilisation=60))
    text = html.REPORT.render(
        replace(taken, cases=(replace(case, measured=replace(case.measured, gpu=busy)), *taken.cases[1:])), "en"
    )[""]
    assert "NVIDIA H200: copies 4.22 TB/s, bf16 782 TFLOP/s" in text
    assert "llama-cpp f16 cuda:0: NVIDIA H200 was busy at 60 % before" in text


def test_nothing_of_a_record_is_markup_or_code(page: str, parsed: Parsed) -> None:
    assert parsed.tags.isdisjoint({"img", "iframe", "link", "object", "base"})
    assert "taken'</script>" not in page
    assert "49&amp;" not in page
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]*)"', page)
    assert policy is not None
    allowed = set(re.findall(r"sha256-([^&]*)&#39;", policy[1]))
    run = [text for attributes, text in parsed.scripts if "type" not in attributes]
    assert {base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in run} == allowed
    assert "unsafe-eval" not in policy[1]


def test_nothing_is_fetched(parsed: Parsed) -> None:
    assert parsed.fetched == []


def test_run_without_cases_is_a_page() -> None:
    text = html.REPORT.render(report_record(), "en")[""]
    assert Parsed(text).data("data") == {"items": []}


def test_missing_libraries_are_an_error_before_measuring(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Any,  # noqa: ANN401 - a path
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    with pytest.raises(OptionError, match=r'pip install "pytest-rwkvperf\[html\]"'):
        report_files.check([formats.parse("report.html", tmp_path)])


def test_very_many_samples_are_thinned_with_a_note(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(html, "_MAX_SAMPLES", 3)
    taken = report_record(recorded(make_record(make_run(pp16=[10**7] * 5), make_run(pp16=[10**7] * 4))))
    text = html.REPORT.render(taken, "en")[""]
    assert "One sample in 3 is drawn." in text
    assert len(Parsed(text).data("samples-data")[0]["at"]) == 3


def test_case_timed_in_both_protocols_is_two() -> None:
    measured = make_record(make_run(pp16=[10**7, 11 * 10**6]))
    native = replace(measured, case=replace(CASE, protocol="native"))
    page = Parsed(html.REPORT.render(report_record(recorded(measured), recorded(native)), "en")[""])
    labels = ["llama-cpp q8_0 cpu", "llama-cpp q8_0 (native) cpu"]
    assert [one["case"] for one in page.data("data")["items"]] == labels
    cells = [[text for text, _ in row][1] for row in page.rows if len(row) > 1]
    assert cells.count("q8_0") == cells.count("q8_0 (native)") >= 2
