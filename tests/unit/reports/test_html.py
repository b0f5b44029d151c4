from __future__ import annotations

import base64
import hashlib
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pytest_rwkvperf.core.cause import Cause
from pytest_rwkvperf.core.errors import OptionError
from pytest_rwkvperf.core.work import WorkJudgement
from pytest_rwkvperf.reports import figures, formats, html, report_files, wording
from pytest_rwkvperf.reports.sections import workloads
from pytest_rwkvperf.reports.sections.shown import Shown
from pytest_rwkvperf.reports.sections.speed import speeds
from pytest_rwkvperf.stats.estimates import Rate
from pytest_rwkvperf.stats.verdicts import Comparison
from pytest_rwkvperf.store import record
from pytest_rwkvperf.store.record import Record, RecordedCase, RecordedInvariant, RecordedItem, SkippedEngine
from tests.unit.building import CASE, make_record, make_run, passed, recorded, report_record, slower, with_verdict

if TYPE_CHECKING:
    from pytest_rwkvperf.stats.verdicts import Verdict

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
    """The page's tables as rows of cells by caption, its elements as (tag, attributes, text), what would be fetched."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tables: dict[str, list[list[str]]] = {}
        self.elements: list[tuple[str, dict[str, str | None], str]] = []
        self.fetched: list[str] = []
        self._open: list[int] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.fetched += [
            str(value) for name, value in attrs if name in {"src", "href"} and not str(value).startswith("#")
        ]
        self.elements.append((tag, dict(attrs), ""))
        if tag in {"meta", "input", "br"}:
            return
        self._open.append(len(self.elements) - 1)
        if tag == "tr":
            next(reversed(self.tables.values())).append([])

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs), ""))

    def handle_endtag(self, tag: str) -> None:
        name, _, text = self.elements[self._open.pop()]
        assert name == tag, "elements end in the order in which they began"
        if tag == "caption":
            self.tables[text] = []
        if tag in {"td", "th"}:
            next(reversed(self.tables.values()))[-1].append(text)

    def handle_data(self, data: str) -> None:
        for index in self._open:
            tag, attributes, text = self.elements[index]
            self.elements[index] = (tag, attributes, text + data)

    def texts(self, tag: str, css: str = "") -> list[str]:
        """The text, with single spaces, of each element of a tag, and of a class if one is given."""
        chosen = (
            text
            for name, attributes, text in self.elements
            if name == tag and css in ["", *str(attributes.get("class", "")).split()]
        )
        return [" ".join(text.split()) for text in chosen]

    def samples(self) -> list[tuple[str, int]]:
        """The class and the number of points of each path of samples."""
        paths = [(str(own["class"]), str(own["d"])) for tag, own, _ in self.elements if tag == "path"]
        return [(name, path.count("M")) for name, path in paths if name.startswith("samples")]


def parsed_page(taken: Record) -> Parsed:
    return Parsed(html.REPORT.render(taken, "en")[""])


@pytest.fixture(scope="module")
def page() -> str:
    return html.REPORT.render(hostile_record(), "en")[""]


@pytest.fixture(scope="module")
def parsed(page: str) -> Parsed:
    return Parsed(page)


def judged_record(*verdicts: tuple[Verdict | None, float | None]) -> Record:
    """A case for each verdict and ratio."""
    cases = []
    for number, (verdict, ratio) in enumerate(verdicts):
        measured = make_record(make_run(pp16=[10**7], tg4=[10**7]), case=replace(CASE, quant=f"q{number}"))
        item = replace(passed(measured)[0], verdict=verdict)
        if ratio is None:
            item = replace(item, comparison=None, baseline=None)
        else:
            item = replace(item, comparison=Comparison(ratio, ratio * 0.95, ratio * 1.05, 0.05, 0.01, 0.2))
        cases.append(recorded(measured, item))
    return report_record(*cases)


def test_workloads_are_listed_from_the_worst_ratio_on() -> None:
    page = parsed_page(
        judged_record(
            ("PASS", 1.01), ("NO-BASELINE", None), ("INCONCLUSIVE", 0.6), ("IMPROVEMENT", 1.2), ("REGRESSION", 0.8),
            ("INVALID", None), ("REGRESSION", 0.5), ("PASS", 0.99), (None, None),
        )
    )  # fmt: skip
    order = [text.split()[-1] for text in page.texts("span", "name")[:9]]
    assert order == ["q6", "q4", "q5", "q2", "q7", "q0", "q3", "q1", "q8"]
    changed = [text for text in page.texts("span", "change") if text]
    assert changed[0] == "2 times slower90 % to 2.1 times slower"
    assert changed[1] == "25 % slower19 % to 32 % slower"


def test_a_row_has_speed_reason_interval_and_samples() -> None:
    measured = make_record(make_run(pp16=[10**7] * 3), make_run(pp16=[11 * 10**6] * 2))
    reason = "because of this"
    item = with_verdict("REGRESSION", workload="pp16", reason=reason, rate=Rate(1500, 1400, 1600, 2, 5))
    page = parsed_page(report_record(recorded(measured, item)))
    (row,) = page.texts("details", "row")
    interval = "95 % interval 1400 to 1600; 2 processes, 5 samples"
    for part in ("REGRESSION", "1500 t/s", interval, reason, "bounds 0.456 to"):
        assert part in row
    assert page.samples() == [("samples new", 5)]


def test_ratio_beyond_the_scale_is_an_arrow_and_no_dot() -> None:
    page = parsed_page(judged_record(("IMPROVEMENT", 6.1), ("PASS", 1.0)))
    near, far = page.texts("span", "change")
    assert near == "same speed5.3 % slower to 5 % faster"
    assert far == "6.1 times faster5.8 times to 6.4 times faster"
    names = [attributes.get("class") or tag for tag, attributes, _ in page.elements]
    plots = " ".join(names).split("plot ")[1:]
    assert ["circle" in one for one in plots[:2]] == [True, False]
    assert ["arrow" in one for one in plots[:2]] == [False, True]


def test_every_figure_of_the_terminal_is_in_a_table(parsed: Parsed) -> None:
    rows = parsed.tables["Every workload"]
    items = [figures.item_cells(case, item) for case, item in hostile_record().items()]
    assert rows[0] == [name for name in items[0] if any(cells[name] for cells in items)]
    assert rows[1:] == [[cells[name] for name in rows[0]] for cells in items]
    cases = [figures.case_cells(case) for case in hostile_record().cases[:2]]
    rows = parsed.tables["Every case"]
    assert rows[1:] == [[cells[name] for name in rows[0]] for cells in cases]


def test_both_sides_and_probes_are_drawn(parsed: Parsed) -> None:
    # llama-cpp's pp16: only one of two processes has probes, on both sides.
    assert parsed.samples()[:3] == [("samples new", 4), ("samples old", 4), ("samples probe", 4)]


def test_bars_of_memory_name_the_quant() -> None:
    cases = [recorded(make_record(make_run(pp16=[10**7], peak=peak), case=replace(CASE, quant=quant)))
             for quant, peak in (("q8_0", 2**30), ("f16", 2**31))]  # fmt: skip
    page = parsed_page(report_record(*cases))
    memory = next(text for text in page.texts("details", "section") if text.startswith("Memory"))
    assert "q8_0 1 024 f16 2 048" in memory.replace(wording.SPACE, " ")
    assert "1024 MiB to 2048 MiB" in memory


def test_hardware_is_shown_only_with_its_figures() -> None:
    measured = recorded(make_record(make_run(pp16=[10**7])))
    shared = replace(measured, items=tuple(replace(one, roofline_share=0.5) for one in measured.items))
    titles = ("Share of the roofline", "Energy of a token", "Peak GPU memory", "Utilisation")
    for one, expected in ((measured, []), (shared, ["Share of the roofline"])):
        found = parsed_page(report_record(one)).texts("h3")
        assert [title for title in titles if title in found] == expected


def test_gpu_figures_of_a_record_are_shown() -> None:
    taken = h200_record()
    page = parsed_page(taken)
    shown = " ".join(page.texts("details", "section"))
    for case, item in taken.items():
        assert item.joules_per_token is not None
        assert item.roofline_share is not None
        assert item.utilisation is not None
        assert case.figures is not None
        assert case.figures.peak_device_bytes is not None
        assert f"{item.joules_per_token:.3g} J" in shown
        assert f"{item.roofline_share:.1%}".replace(".0%", "%").replace("%", " %") in shown
        assert f"{item.utilisation:.0%}".replace("%", " %") in shown
        assert f"{round(case.figures.peak_device_bytes / 2**20):,}".replace(",", " ") in shown


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
    assert "<b>llama-cpp f16 cuda:0</b>: NVIDIA H200 was busy at 60 % before" in text


def test_nothing_of_a_record_is_markup_or_code(page: str, parsed: Parsed) -> None:
    tags = {tag for tag, _, _ in parsed.elements}
    assert tags.isdisjoint({"img", "iframe", "link", "object", "base"})
    assert "taken'</script>" not in page
    assert "49&amp;" not in page
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]*)"', page)
    assert policy is not None
    (allowed,) = re.findall(r"sha256-([^&]*)&#39;", policy[1])
    (script,) = [text for tag, _, text in parsed.elements if tag == "script"]
    assert base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() == allowed
    assert "unsafe-eval" not in policy[1]


def test_nothing_is_fetched(parsed: Parsed) -> None:
    assert parsed.fetched == []


def test_run_without_cases_is_a_page() -> None:
    page = parsed_page(report_record())
    assert page.texts("h1") == ["Nothing was measured"]
    assert page.texts("h2") == ["Machine and run"]


def test_interrupted_run_has_no_section_without_figures() -> None:
    lost = RecordedCase(CASE, None, None, (RecordedItem("pp16", None, "the run ended before it", fails=False),))
    page = parsed_page(report_record(lost, exit_status=2))
    assert page.texts("h1") == ["Interrupted before anything was judged"]
    assert page.texts("h2") == ["Machine and run"]


def test_run_without_baseline_shows_speeds_first() -> None:
    page = parsed_page(judged_record(("NO-BASELINE", None), ("NO-BASELINE", None)))
    assert page.texts("h1") == ["2 speeds measured; no baseline to compare with"]
    assert page.texts("h2")[:2] == ["Speed", "Each workload"]


def test_missing_library_is_an_error_before_measuring(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Any,  # noqa: ANN401 - a path
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    with pytest.raises(OptionError, match="pip install jinja2"):
        report_files.check([formats.parse("report.html", tmp_path)])


def test_very_many_samples_are_thinned_with_a_note(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workloads, "_MAX_SAMPLES", 3)
    taken = report_record(recorded(make_record(make_run(pp16=[10**7] * 5), make_run(pp16=[10**7] * 4))))
    page = parsed_page(taken)
    assert "one in 3 is drawn" in page.texts("figcaption")[0]
    assert page.samples() == [("samples new", 3)]


def test_case_timed_in_both_protocols_is_two() -> None:
    measured = make_record(make_run(pp16=[10**7, 11 * 10**6]))
    native = replace(measured, case=replace(CASE, protocol="native"))
    page = parsed_page(report_record(recorded(measured), recorded(native)))
    assert page.texts("span", "name")[:2] == ["pp16 q8_0", "pp16 q8_0 (native)"]
    assert [row[1] for row in page.tables["Every workload"][1:]] == ["q8_0", "q8_0 (native)"]


def test_many_workloads_are_folded_behind_those_that_got_slower() -> None:
    slower: tuple[Verdict, float] = ("REGRESSION", 0.8)
    same: tuple[Verdict, float] = ("PASS", 1.0)
    page = parsed_page(judged_record(*[slower] * 12, *[same] * 30))
    shown, folded = (text.count("t/s") > 0 and text for text in (page.texts("ol", "rows")))
    assert str(shown).count("REGRESSION") == 12
    assert "PASS" not in str(shown)
    assert str(folded).count("PASS") == 30
    assert "30 more workloads: 30 within the tolerance" in page.texts("summary")


def test_invariants_and_work_are_shown() -> None:
    (case,) = judged_record(("PASS", 1.0)).cases
    found = RecordedInvariant(
        "depth", "claim", "pp16", "tg4", "time", "BROKEN", "why", fails=True, tolerance=0.05,
        comparison=Comparison(0.8, 0.78, 0.82, 0.05, 0.01, 0.2),
    )  # fmt: skip
    work = WorkJudgement("MORE WORK", ("twice the nodes",))
    items = tuple(replace(item, work=work) for item in case.items)
    page = parsed_page(report_record(replace(case, items=items, invariants=(found,))))
    assert "Invariants" in page.texts("h2")
    (judged, invariant) = page.texts("details", "row")
    assert "MORE WORK: twice the nodes" in judged
    assert invariant == "BROKEN depth llama-cpp pp16 / tg4 0.800 claimwhy"


def test_a_bar_has_the_baseline_in_its_own_statistic_beside_it() -> None:
    measured = make_record(make_run(pp16=[10**7] * 3), make_run(pp16=[10**7] * 3))
    (item,) = passed(measured)
    assert item.typical_rate is not None
    # What was compared is of the fast repetitions, twice the median here; the ratio is 2.
    fast = replace(item.typical_rate, median=2 * item.typical_rate.median, statistic="fast")
    old = replace(fast, median=fast.median / 2)
    case = recorded(measured, replace(item, rate=fast, baseline=old, median_rate=item.typical_rate))
    shown = speeds(Shown.of(report_record(case)))
    assert shown is not None
    ((bar,),) = [group.bars for group in shown.groups]
    assert bar.mark.reference is not None
    assert bar.value == item.typical_rate.median
    assert 2 * bar.mark.reference == pytest.approx(bar.mark.at, abs=0.02)


@pytest.mark.parametrize(("detectable", "shown"), [(0.3, True), (figures.UNBOUNDED, False)])
def test_a_detectable_slowdown_is_shown_if_it_is_of_use(detectable: float, shown: bool) -> None:  # noqa: FBT001 - a case
    (case,) = judged_record(("PASS", 1.0)).cases
    (item,) = case.items
    assert item.comparison is not None
    item = replace(item, comparison=replace(item.comparison, detectable=detectable))
    page = parsed_page(report_record(replace(case, items=(item,))))
    assert ("Detects" in page.texts("dt")) == shown


def test_columns_of_figures_are_aligned_and_the_hardware_section_says_what_it_has() -> None:
    page = parsed_page(h200_record())
    classes = {text: attributes.get("class") for tag, attributes, text in page.elements if tag == "th"}
    assert (classes["t/s"], classes["backend"], classes["verdict"]) == ("n", "", "")
    assert "Hardware roofline, energy, utilisation" in page.texts("summary")


def test_what_differs_is_a_table_of_its_regression() -> None:
    (case,) = judged_record(("REGRESSION", 0.8)).cases
    causes = (
        Cause("operator", "RWKV_WKV7", "15 ms", "19.7 ms", 0.31, 0.047, "graph"),
        Cause("software", f"rwkv 1 → {HOSTILE}"),
    )
    items = tuple(replace(item, causes=causes) for item in case.items)
    page = parsed_page(report_record(replace(case, items=items)))
    assert page.tables["What differs, the most important first"][1:] == [
        ["operator", "RWKV_WKV7 (graph)", "15 ms", "19.7 ms", "+31.0 %", "+4.7 %"],
        ["software", f"rwkv 1 → {HOSTILE}", "", "", "", ""],
    ]
