"""Hostile names in markdown: a GitHub-flavoured renderer shows exactly the names."""

from __future__ import annotations

import html
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from pytest_rwkvperf.reports import markdown_text

GITHUB = MarkdownIt("gfm-like", {"html": True, "linkify": False})
TAG = re.compile(r"<[^>]*>")


def shown(source: str) -> str:
    """The text that a reader sees, in one line."""
    rendered = GITHUB.render(source)
    return " ".join(html.unescape(TAG.sub("", rendered)).replace("\u2060", "").split())


@pytest.mark.parametrize(
    "name",
    [
        "rwkv7-g1-2.9b-20250519-ctx4096.st",
        "q4_k_m",
        "int8@31",
        "rwkv7 2.9B Q4_K - Medium",
        "NVIDIA GeForce RTX 4090",
        "cuda:0",
    ],
)
def test_ordinary_names_are_unchanged(name: str) -> None:
    assert markdown_text.escape(name) == name


@pytest.mark.parametrize(
    "name",
    [
        "a|b",
        "**bold** _em_ ~~gone~~",
        "[link](https://example.org) ![image](x.png)",
        "<script>alert(1)</script>",
        "&lt; &#64; <!-- -->",
        "`code` ``` fence",
        "\\| \\",
        "$x$ a_b_ __dunder__",
    ],
)
def test_hostile_names_render_as_themselves(name: str) -> None:
    table = markdown_text.table(["name", "value"], [[markdown_text.escape(name), "1"]])
    assert GITHUB.render(table).count("<td") == 2
    assert shown(table) == f"name value {' '.join(name.split())} 1"
    assert shown(f"GPU: {markdown_text.escape(name)}") == f"GPU: {' '.join(name.split())}"


def test_at_signs_and_numbers_are_no_references() -> None:
    assert re.search(r"(?<!\w)[@#]\w", markdown_text.escape("@somebody #12 (@other)")) is None


def test_control_and_direction_characters_and_line_breaks_are_removed() -> None:
    assert markdown_text.clean("a\x1b[31m\n# b\u202ec\x00\u200b\r\nd") == "a[31m # bc  d"


@given(st.text(alphabet=st.characters(codec="utf-8"), max_size=40))
def test_any_text_is_one_cell(text: str) -> None:
    rendered = GITHUB.render(markdown_text.table(["a", "b"], [[markdown_text.escape(text), "end"]]))
    assert rendered.count("<td") == 2
    assert rendered.count("<tr") == 2
    assert set(TAG.findall(rendered)) <= {
        "<table>", "</table>", "<thead>", "</thead>", "<tbody>", "</tbody>", "<tr>", "</tr>", "<th>", "</th>", "<td>",
        "</td>",
    }  # fmt: skip
