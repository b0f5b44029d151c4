"""The documentation's parts that are made, and what it must not miss."""

from __future__ import annotations

import logging
import re
from pathlib import Path

import pytest

from pytest_rwkvperf.cli.main import COMMANDS
from pytest_rwkvperf.run.options import OPTIONS
from tools import dev

pytest.importorskip("mkdocs", reason="MkDocs is not installed: pip install '.[docs]'")

from tools import docs_hooks

ROOT = Path(dev.__file__).parent.parent


def test_the_options_page_has_every_option_with_its_twin_and_default() -> None:
    page = docs_hooks.options_page()
    for option in OPTIONS:
        assert f"## `{option.flag}`" in page
        assert f"ini `{option.ini}`" in page
        assert f"Default: `{option.default}`." in page or not option.default


def test_the_commands_page_has_every_subcommands_help() -> None:
    page = docs_hooks.command_page()
    for name in COMMANDS:
        assert f"### `rwkvperf {name}`" in page
    assert "#### `rwkvperf history trend`" in page
    assert "usage: rwkvperf history trend" in page


@pytest.mark.parametrize("name", ["README.md", "README.zh.md"])
def test_both_readmes_list_every_option(name: str) -> None:
    text = (ROOT / name).read_text(encoding="utf-8")
    assert [option.flag for option in OPTIONS if f"`{option.flag}" not in text] == []
    assert [option.ini for option in OPTIONS if f"`{option.ini}`" not in text] == []


def test_both_readmes_lead_to_the_same_pages() -> None:
    def pages(name: str) -> set[str]:
        links = re.findall(r"\]\(([^)#]+)[^)]*\)", (ROOT / name).read_text(encoding="utf-8"))
        return {link.replace("docs/zh/", "docs/") for link in links if not link.startswith("README")}

    assert pages("README.md") == pages("README.zh.md")


@pytest.mark.parametrize(
    ("page", "text", "becomes"),
    [
        ("index.md", "[a](docs/ab.md#limits)", "[a](ab.md#limits)"),
        ("zh/index.md", "[a](docs/ab.md)", "[a](../ab.md)"),
        ("zh/tutorial.md", "[a](../../README.zh.md)", "[a](index.md)"),
        ("ab.md", "[a](../README.md) and [b](parity.md)", "[a](index.md) and [b](parity.md)"),
        ("index.md", "see [.ci/run](.ci/run).", "see .ci/run."),
        ("index.md", "[web](https://a.example/b.md) [here](#limits)", "[web](https://a.example/b.md) [here](#limits)"),
    ],
)
def test_links_are_those_of_the_site(page: str, text: str, becomes: str) -> None:
    known = {"index.md", "zh/index.md", "zh/tutorial.md", "ab.md", "parity.md"}
    assert docs_hooks.relinked(text, page, known) == becomes


def test_a_link_that_leads_nowhere_is_told(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert docs_hooks.relinked("[a](../none.md)", "ab.md", set()) == "a"
    assert "ab.md: the link to ../none.md leads nowhere" in caplog.text
