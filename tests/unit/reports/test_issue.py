"""The guide's templates, filled in as a person would by hand; hostile names stay text."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

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


def sections(text: str) -> dict[str, str]:
    _, *parts = re.split(r"^### (.*)$", text, flags=re.MULTILINE)
    return dict(zip(parts[::2], map(str.strip, parts[1::2]), strict=True))


@pytest.mark.parametrize(
    ("engine", "prefix", "label"),
    [
        ("web-rwkv", "[web-rwkv report]", "web-rwkv"),
        ("rwkv", "[rwkv-pip report]", "rwkv-pip"),
        ("llama-cpp", "[llama.cpp report]", "llama.cpp"),
    ],
)
def test_title_labels_and_sections_are_the_guides(engine: str, prefix: str, label: str) -> None:
    text = rendered(engine)
    _, title, labels, _ = text.splitlines()[:4]
    assert json.loads(title.removeprefix("title: ")).startswith(f"{prefix} rwkv7-g1-2.9b ")
    assert json.loads(labels.removeprefix("labels: ")) == ["performance", label]
    assert [*sections(text)] == [
        "CPU model", "GPU model", "Performance data", "System information [optional]", "Screenshot [optional]",
    ]  # fmt: skip
    assert sections(text)["GPU model"] == "NVIDIA GeForce RTX 4090 (vulkan:0, NVIDIA 580.1)"
    assert "- NVIDIA driver: 580.1" in sections(text)["System information [optional]"]


def test_chinese_sections_are_the_chinese_guides() -> None:
    chinese, english = rendered("rwkv", "zh"), rendered("rwkv")
    assert [*sections(chinese)] == ["CPU 型号", "GPU 型号", "性能数据", "系统信息 [可选]", "截图 [可选]"]
    assert re.findall(r"\d+\.\d+ tokens/s", chinese) == re.findall(r"\d+\.\d+ tokens/s", english)


def test_web_rwkv_table_is_that_of_its_bench_example() -> None:
    """The header and the widths are what `bench` of web-rwkv 0.10.20 printed; all tokens over all time."""
    lines = sections(rendered("web-rwkv"))["Performance data"].splitlines()
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
    assert sections(rendered("rwkv"))["Performance data"].split("```")[1].splitlines() == [
        "text",
        "# strategy: vulkan:0 fp16",
        "[Current Generation]: 128 tokens | Time: 1.50s | Speed: 85.33 tokens/s",
        "[Total Statistics]: 512 tokens | Average Speed: 102.40 tokens/s",
    ]


def test_llama_bench_table_stands_above_our_figures_with_intervals() -> None:
    performance = sections(rendered("llama-cpp"))["Performance data"]
    assert performance.startswith(llama_bench.as_markdown(llama_bench_rows.rows_of(RECORD, [LLAMA])))
    (row,) = [line for line in performance.splitlines() if line.startswith("| q8_0  | vulkan:0 | pp512")]
    rate = LLAMA.items[0].rate
    assert rate is not None
    assert rate.high is not None
    assert f" {rate.median:.2f} | {rate.low:.2f} - {rate.high:.2f} | 2 × 2 |" in re.sub(" +", " ", row)  # noqa: RUF001
    assert "collects figures" not in performance


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
        front, body = text.split("\n---\n", 1)
        assert len(front.splitlines()) == 3
        tokens = MarkdownIt("gfm-like", {"html": True, "linkify": False}).parse(body)
        inline = [child for token in tokens for child in token.children or ()]
        assert {token.type for token in inline} <= {"text", "softbreak", "text_special", "code_inline"}
        assert {token.content for token in inline if token.type == "code_inline"} <= {"--rwkv-protocol=native"}
        assert not any(token.type.startswith("html") for token in tokens)
        assert [token.tag for token in tokens if token.type == "heading_open"] == ["h3"] * 5
        widths = {line.count(" | ") for line in body.splitlines() if line.startswith("| q8_0")}
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
