"""The guide's templates, filled in as a person would by hand; hostile names stay text."""

from __future__ import annotations

import re
import shlex
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urlsplit

import pytest
from markdown_it import MarkdownIt

from pytest_rwkvperf.core.cases import Case
from pytest_rwkvperf.core.engine import Device
from pytest_rwkvperf.core.errors import ReportError
from pytest_rwkvperf.measure.record import CaseRecord, ModelFacts
from pytest_rwkvperf.reports import formats, llama_bench, llama_bench_rows
from pytest_rwkvperf.reports.issue import REPORT
from pytest_rwkvperf.store.record import RecordedCase, RecordedItem
from tests.unit.building import make_record, make_run, recorded, report_record

if TYPE_CHECKING:
    from pytest_rwkvperf.reports.report import Language
    from pytest_rwkvperf.store.record import Record

G1 = ModelFacts("rwkv7-g1-2.9b", "a" * 64, 2948000000, 5900000000, "rwkv7-g1-2.9b-20250519-ctx4096.st", 32, 2560)
GPU = Device("vulkan:0", "NVIDIA GeForce RTX 4090", "gpu", "NVIDIA 580.1")
MILLI = 10**6


def measured(backend: str, quant: str, device: Device = GPU, model: ModelFacts = G1) -> CaseRecord:
    runs = [make_run(pp512=[400 * MILLI, 600 * MILLI], tg128=[1000 * MILLI, 1500 * MILLI]) for _ in range(2)]
    return replace(
        make_record(*runs, case=Case(backend, model.name, quant, device.id, 4, 128), device=device), model=model
    )


WEB = [recorded(measured("web-rwkv", quant)) for quant in ("fp16", "int8@31", "nf4")]
PIP = recorded(measured("rwkv", "fp16"))
LLAMA = recorded(measured("llama-cpp", "q8_0"))
RECORD = report_record(*WEB, PIP, LLAMA)


def rendered(name: str, language: Language = "en") -> str:
    return REPORT.render(RECORD, language)[name]


def performance(text: str) -> str:
    return sections(text)["📊 Performance data"]


def sections(text: str) -> dict[str, str]:
    _, *parts = re.split(r"^## (.*)$", text, flags=re.MULTILINE)
    return dict(zip(parts[::2], map(str.strip, parts[1::2]), strict=True))


HEADINGS = [
    "💾 CPU model", "🎮 GPU model", "📊 Performance data", "🛠️ System information [optional]", "🖥 Screenshot [optional]",
]  # fmt: skip
"""Of the three templates in the guide's repository, in August 2025."""


OPENS = re.compile(r"To open [a-z-]+-performance-report\.md filled in: ")


def advice(record: Record, language: Language = "en", file: str = "issue.md") -> list[str]:
    return [*REPORT.advice(record, language, lambda _part: file), *REPORT.links(record, language)]


def query(line: str) -> dict[str, str]:
    """What GitHub reads from the link in a line."""
    address = urlsplit(OPENS.sub("", line))
    assert address.geturl().startswith("https://github.com/RWKV-Vibe/RWKV-Inference-Performance-Test/issues/new?")
    return {name: "".join(values) for name, values in parse_qs(address.query, strict_parsing=True).items()}


@pytest.mark.parametrize("language", ["en", "zh"])
@pytest.mark.parametrize("engine", ["web-rwkv", "rwkv", "llama-cpp"])
def test_the_text_has_the_templates_headings_and_no_front_matter(engine: str, language: Language) -> None:
    text = rendered(engine, language)
    assert text.startswith("## 💾 CPU model\n\nModel of processor (")
    assert [*sections(text)] == HEADINGS
    assert sections(text)["🎮 GPU model"] == "NVIDIA GeForce RTX 4090 (vulkan:0, NVIDIA 580.1)"
    assert "- NVIDIA driver: 580.1" in sections(text)["🛠️ System information [optional]"]
    assert not re.search("^(---|title:|labels:)", text, re.MULTILINE)


@pytest.mark.parametrize(
    ("case", "prefix", "label", "template"),
    [
        (WEB[0], "[web-rwkv report] ", "web-rwkv", "web-rwkv-performance-report.md"),
        (PIP, "[rwkv-pip report] ", "rwkv-pip", "rwkv-pip-performance-report.md"),
        (LLAMA, "[llama.cpp report] ", "llama.cpp", "llama-cpp-performance-report.md"),
    ],
)
def test_title_labels_and_template_are_the_guides(case: RecordedCase, prefix: str, label: str, template: str) -> None:
    record = report_record(case)
    command, opened = advice(record)
    words = shlex.split(command.removeprefix("To post issue.md: "))
    title = f"{prefix}rwkv7-g1-2.9b {case.case.quant} | NVIDIA GeForce RTX 4090"
    assert words == [
        "gh", "issue", "create", "--repo", "RWKV-Vibe/RWKV-Inference-Performance-Test", "--title", title,
        "--label", "performance", "--label", label, "--body-file", "issue.md",
    ]  # fmt: skip
    asked = query(opened)
    assert asked.keys() == {"template", "title", "body"}, "a label in the link is a 404 for those who may not label"
    assert (asked["template"], asked["title"]) == (template, title)
    assert asked["body"].split() == re.sub("-{4,}", "---", REPORT.render(record, "en")[""]).split()


CUTS = [
    "",
    "the table with intervals",
    "the table with intervals, the system's details",
    "the table with intervals, the system's details, the last lines",
]


def test_long_text_is_cut_to_fit_a_link_and_the_link_says_so() -> None:
    several = [recorded(measured("llama-cpp", f"q{bits}_0")) for bits in range(60)]
    seen = []
    for count in range(1, 60, 2):
        _, opened, *note = advice(report_record(*several[:count]))
        body = query(opened)["body"]
        assert len(OPENS.sub("", opened)) <= 8000, "GitHub answers 414 beyond 8191 bytes"
        (missing,) = [line.split(" leaves out ")[1].split(":")[0] for line in note] or [""]
        assert body.startswith(f"> Left out to fit into a link: {missing}.\n" if missing else "## 💾 CPU model\n")
        seen.append(missing)
    assert seen == sorted(seen, key=CUTS.index), "a longer text loses no less"
    assert {*seen} == {*CUTS}
    assert query(advice(report_record(*several), "zh")[1])["body"].startswith("> 为缩短链接而省略")


def test_title_of_any_model_fits_into_a_link() -> None:
    model = replace(G1, name="模" * 2000)
    _, opened, *_ = advice(report_record(recorded(measured("rwkv", "fp16", model=model))))
    assert len(query(opened)["title"]) == 256
    assert query(opened)["title"].endswith("…")
    assert len(opened) < 8191


def test_engine_unknown_to_the_guide_has_no_link() -> None:
    command, told = advice(report_record(recorded(measured("mine", "f16"))))
    assert "--title '[mine report] rwkv7" in command
    assert told == "The guide has no template for mine."


def test_each_engine_has_its_command() -> None:
    lines = REPORT.advice(RECORD, "en", "issue-{}.md".format)
    assert [line.split(":")[0] for line in lines] == [
        "To post issue-web-rwkv.md", "To post issue-rwkv.md", "To post issue-llama-cpp.md",
    ]  # fmt: skip


def test_both_languages_have_the_same_figures() -> None:
    chinese, english = rendered("rwkv", "zh"), rendered("rwkv")
    assert "进程 × 样本" in chinese  # noqa: RUF001 - times
    assert re.findall(r"\d+\.\d+ tokens/s", chinese) == re.findall(r"\d+\.\d+ tokens/s", english)


def test_web_rwkv_table_is_that_of_its_bench_example() -> None:
    """The header and the widths are what `bench` of web-rwkv 0.10.20 printed; all tokens over all time."""
    lines = performance(rendered("web-rwkv")).splitlines()
    assert lines[:4] == [
        "| model                                                    | quant_int8 | quant_float4 |    test |            t/s |",  # noqa: E501 - as printed
        "|----------------------------------------------------------|-----------:|-------------:|--------:|---------------:|",
        "| rwkv7-g1-2.9b-20250519-ctx4096.st                        |          0 |            0 |   pp512 |        1024.00 |",  # noqa: E501 - as printed
        "| rwkv7-g1-2.9b-20250519-ctx4096.st                        |          0 |            0 |   tg128 |         102.40 |",  # noqa: E501 - as printed
    ]
    assert [line.split("|")[2:4] for line in lines[4:8:2]] == [
        ["         31 ", "            0 "],
        ["          0 ", "           32 "],
    ]


def test_pip_package_lines_are_those_of_the_guides_script() -> None:
    assert performance(rendered("rwkv")).split("```")[1].splitlines() == [
        "text",
        "# strategy: vulkan:0 fp16",
        "[Current Generation]: 128 tokens | Time: 1.50s | Speed: 85.33 tokens/s",
        "[Total Statistics]: 512 tokens | Average Speed: 102.40 tokens/s",
    ]


def test_llama_bench_table_stands_above_our_figures_with_intervals() -> None:
    text = performance(rendered("llama-cpp"))
    assert text.startswith(llama_bench.as_markdown(llama_bench_rows.rows_of(RECORD, [LLAMA])))
    (row,) = [line for line in text.splitlines() if line.startswith("| q8_0  | vulkan:0 | pp512")]
    rate = LLAMA.items[0].rate
    assert rate is not None
    assert rate.high is not None
    assert f" {rate.median:.2f} | {rate.low:.2f} - {rate.high:.2f} | 2 × 2 |" in re.sub(" +", " ", row)  # noqa: RUF001
    assert "collects figures" not in text


def test_llama_cpps_commit_is_unknown_where_its_binding_tells_none() -> None:
    told = {"llama-cpp-python": "0.3.36", "llama.cpp": "0.5.0-dev"}
    own = recorded(replace(measured("llama-cpp", "f16"), versions=told))
    assert "\nbuild: unknown (llama-cpp-python 0.3.36)\n" in REPORT.render(report_record(own), "en")[""]
    told = {"llama-bench": "0.5.0", "executable": "ab" * 6, "build": "0c1e570 (6123)"}
    program = recorded(replace(measured("llama-bench", "f16"), versions=told))
    assert "\nbuild: 0c1e570 (6123)\n" in REPORT.render(report_record(program), "en")[""]


@pytest.mark.parametrize(
    ("parameters", "shown"), [(37_310_464, "37M"), (2_948_000_000, "2.9B"), (999_999_999, "1000M")]
)
def test_model_without_a_name_in_llama_cpp_is_shown_by_its_parameters(parameters: int, shown: str) -> None:
    model = replace(G1, layers=4, width=256, parameters=parameters)
    text = REPORT.render(report_record(recorded(measured("llama-cpp", "f16", model=model))), "en")[""]
    assert f"| rwkv7 {shown} F16 " in text
    assert "?B" not in text


def test_verdicts_are_shown_only_where_something_was_compared() -> None:
    (one, other) = LLAMA.items
    new = replace(LLAMA, items=(replace(one, verdict="NO-BASELINE"), replace(other, verdict="NO-BASELINE")))
    mixed = replace(LLAMA, items=(replace(one, verdict="NO-BASELINE"), other))
    assert "verdict" not in REPORT.render(report_record(new), "en")[""]
    assert "结论" not in REPORT.render(report_record(new), "zh")[""]
    text = REPORT.render(report_record(mixed), "en")[""]
    assert "| verdict |" in text
    assert "NO-BASELINE" not in text


def test_model_that_the_guide_does_not_take_is_marked() -> None:
    nano = replace(G1, name="synthetic:2.9b")
    other = REPORT.render(report_record(recorded(measured("rwkv", "fp16", model=nano))), "en")
    assert [*other] == [""], "one engine alone needs no name in its file's"
    assert "> The guide collects figures of RWKV7-G1 2.9B only. These are of synthetic:2.9b." in other[""]


def test_each_engine_has_a_file_with_its_name() -> None:
    request = formats.parse("issue.md", Path("out"))
    assert [request.path_of(name).name for name in REPORT.render(RECORD, "en")] == [
        "issue-web-rwkv.md", "issue-rwkv.md", "issue-llama-cpp.md",
    ]  # fmt: skip


def test_hostile_names_stay_text() -> None:
    evil = "</td>|`x`**b**<img src=x>\n---\n# @you \x1b[31m```"
    model = replace(G1, name=evil, file_name=evil)
    device = Device("vulkan:0", evil, "gpu", evil)
    died = RecordedCase(Case("llama-cpp", evil, "f16", "cpu", 1, 1), None, None, (), failure=evil)
    cases = [recorded(measured(engine, "f16", device, model)) for engine in ("llama-cpp", "web-rwkv", "rwkv")]
    for text in REPORT.render(report_record(*cases, died), "en").values():
        assert "\x1b" not in text
        tokens = MarkdownIt("gfm-like", {"html": True, "linkify": False}).parse(text)
        inline = [child for token in tokens for child in token.children or ()]
        assert {token.type for token in inline} <= {"text", "softbreak", "text_special", "code_inline"}
        assert {token.content for token in inline if token.type == "code_inline"} <= {"--rwkv-protocol=native"}
        assert not any(token.type.startswith("html") for token in tokens)
        assert [token.tag for token in tokens if token.type == "heading_open"] == ["h2"] * 5
        widths = {line.count(" | ") for line in text.splitlines() if line.startswith("| q8_0")}
        assert len(widths) <= 1


def test_nothing_measured_is_an_error() -> None:
    empty = report_record(RecordedCase(WEB[0].case, None, None, (RecordedItem("pp512", None, "died", fails=True),)))
    with pytest.raises(ReportError, match="nothing was measured"):
        REPORT.render(empty, "en")


@pytest.mark.parametrize("quant", ["int8@x", "int8@", "int8@²"])
def test_unknown_quant_is_shown(quant: str) -> None:
    text = REPORT.render(report_record(recorded(measured("web-rwkv", quant))), "en")[""]
    assert f"\n| {quant} " in text


def test_failure_names_the_protocol() -> None:
    lost = replace(
        PIP, case=replace(PIP.case, protocol="native"), measured=None, figures=None, items=(), failure="died"
    )
    assert "\n- fp16 (native), vulkan:0: died\n" in REPORT.render(report_record(PIP, lost), "en")[""]
