"""The documentation: generated pages are current, links lead somewhere, both languages have the same pages."""

from __future__ import annotations

import json
import logging
import math
import re
from dataclasses import replace
from pathlib import Path

import pytest

from pytest_rwkvperf.cli.main import COMMANDS
from pytest_rwkvperf.run.options import OPTIONS
from pytest_rwkvperf.stats.estimates import estimate_rate
from pytest_rwkvperf.stats.levels import SessionTimes, level
from pytest_rwkvperf.stats.verdicts import StoredSessions, compare, compared_rates
from tools import dev, docs_hooks, docs_reference

ROOT = Path(dev.__file__).parent.parent
STATISTICS = " ".join((ROOT / "docs" / "statistics.md").read_text(encoding="utf-8").split())


def test_generated_pages_are_current() -> None:
    assert docs_reference.stale() == [], "renew them: python tools/docs_reference.py"


def test_options_page_has_every_option() -> None:
    page = docs_reference.options_table()
    for option in OPTIONS:
        assert f"`{option.flag}" in page
        assert f"`{option.ini}`" in page


def test_options_page_has_the_settings_of_each_engine() -> None:
    page = docs_reference.options_page()
    assert "| `llama-cpp` | `ubatch` | a number from 1 to" in page
    assert "| `web-rwkv` | `chunk` | a number from 1 to 224 |" in page
    assert "| `rwkv` | `strategy` |  | not to be set: the package's RWKV-7 class" in page


def test_command_page_has_every_subcommand() -> None:
    page = docs_reference.commands()
    assert [name for name in COMMANDS if f"### `rwkvperf {name}" not in page] == []
    assert "### `rwkvperf history trend`" in page
    assert "* `-o, --output FILE`" in page


def test_chinese_options_page_has_every_option() -> None:
    page = (ROOT / "docs" / "zh" / "options.md").read_text(encoding="utf-8")
    assert [option.flag for option in OPTIONS if f"`{option.flag}" not in page] == []


def test_both_readmes_link_to_the_same_pages() -> None:
    def pages(name: str) -> set[str]:
        links = re.findall(r"\]\(([^)#]+)[^)]*\)", (ROOT / name).read_text(encoding="utf-8"))
        chinese = {"docs/zh/tutorial.md": "docs/tutorial.md", "docs/zh/options.md": "docs/reference/options.md"}
        return {chinese.get(link, link) for link in links if not link.startswith("README")}

    assert pages("README.md") == pages("README.zh.md")


@pytest.mark.parametrize(
    ("page", "text", "adapted"),
    [
        ("index.md", "[a](docs/ab.md#limits)", "[a](ab.md#limits)"),
        ("zh/index.md", "[a](docs/ab.md)", "[a](../ab.md)"),
        ("zh/tutorial.md", "[a](../../README.zh.md)", "[a](index.md)"),
        ("ab.md", "[a](../README.md) and [b](parity.md)", "[a](index.md) and [b](parity.md)"),
        ("index.md", "see [.ci/run](.ci/run).", "see .ci/run."),
        ("index.md", "[web](https://a.example/b.md) [here](#limits)", "[web](https://a.example/b.md) [here](#limits)"),
    ],
)
def test_links_are_adapted_to_the_site(page: str, text: str, adapted: str) -> None:
    known = {"index.md", "zh/index.md", "zh/tutorial.md", "ab.md", "parity.md"}
    assert docs_hooks.relinked(text, page, known) == adapted


def test_dead_link_is_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert docs_hooks.relinked("[a](../none.md)", "ab.md", set()) == "a"
    assert "ab.md: the link to ../none.md leads nowhere" in caplog.text


def test_no_page_has_a_dead_link(caplog: pytest.LogCaptureFixture) -> None:
    docs = ROOT / "docs"
    pages = {path.relative_to(docs).as_posix(): path for path in docs.rglob("*.md")}
    pages |= {page: ROOT / source for source, page in docs_hooks.COPIED.items()}
    for page, path in pages.items():
        docs_hooks.adapted(path.read_text(encoding="utf-8"), page, set(pages))
    assert caplog.messages == []


@pytest.fixture(scope="module")
def recorded() -> list[SessionTimes]:
    """The four sessions of docs/statistics.md's example."""
    lines = (ROOT / "benchmarks" / "verdicts" / "one_thread.jsonl").read_text(encoding="utf-8").splitlines()[:4]
    name = "llama-cpp | synthetic:nano | f16 | cpu | threads=1 chunk=512"
    cases = [json.loads(line)["cases"][name] for line in lines]
    return [SessionTimes(case["workloads"]["pp256"], case["probes"]["pp256"], case["foreign"]) for case in cases]


def test_statistics_example_is_what_the_code_computes(recorded: list[SessionTimes]) -> None:
    *stored, unslowed = recorded
    slowed = replace(unslowed, times=[[1.25 * time for time in row] for row in unslowed.times])
    new = estimate_rate(slowed.times, 256)
    found, unchanged = (compare(session, StoredSessions(stored), 0.05, items=4) for session in (slowed, unslowed))
    shown, old = compared_rates(slowed, StoredSessions(stored), found, 256)
    levels = [math.exp(level(session, "fast").value) / 1e6 for session in (*stored, slowed)]
    assert found.mean is not None
    for text in (
        f"{new.median:.0f} tokens/s, 95 % interval {new.low:.0f}\nto {new.high:.0f}",
        f"= {shown.median:.0f} tokens/s, as measured",
        "with the drift, " + f"{old.median:,.0f} tokens/s".replace(",", " "),
        "{:.2f}, {:.2f} and {:.2f} ms in the baseline, {:.2f} ms in the new".format(*levels),
        f"**r = {found.ratio:.3f}**",
        f"= **{found.low:.3f}** and",
        f"= **{found.high:.3f}**",
        f"**{found.verdict}**",
        f"r = {unchanged.ratio:.3f} with bounds {unchanged.low:.3f} to {unchanged.high:.3f}",
        f"the verdict is {unchanged.verdict}",
        f"more than 5 % slower is {unchanged.probability_exceeded or 0:.1%}".replace("1%", "1 %").replace("4%", "4 %"),
        f"(*detects ≥*) is {unchanged.detectable or 0:.0%}".replace("%", " %"),
        f"gives {found.mean.ratio:.3f} with bounds {found.mean.low:.3f} to {found.mean.high:.3f}",
    ):
        assert " ".join(text.split()) in STATISTICS


@pytest.mark.parametrize("page", ["architecture.md", "extending.md", "reliability.md"])
def test_page_names_existing_files(page: str) -> None:
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    in_backticks = re.findall(r"`([\w/-]+/|[\w/-]+\.py)`", text)
    in_diagrams = [f"{name}.py" for name in re.findall(r"\b[a-z]+/[a-z_]+(?=[,)])", text)]
    folders = [ROOT, ROOT / "pytest_rwkvperf", ROOT / "tests"]
    missing = [name for name in in_backticks + in_diagrams if not any((folder / name).exists() for folder in folders)]
    assert missing == []
