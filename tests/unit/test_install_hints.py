"""Hints that say how to install something name what the package index has, and never this project's own name alone.

No index has that name, so anybody could register it there.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from pytest_rwkvperf.backends import registry
from pytest_rwkvperf.fleet import cluster
from pytest_rwkvperf.history import address
from pytest_rwkvperf.models import hub

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[2]
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
ENGINES = sorted(registry.BUILT_IN.keys() & EXTRAS.keys() - {"web-rwkv"})  # its binding is on no index
OWN_NAME = re.compile(r"pip3? install\b[^\n]*?(?<![\w/.-])pytest-rwkvperf(?![\w.-])(?!(?:\[[^\]]*\])? @ )")


@pytest.mark.parametrize("folder", ["pytest_rwkvperf", "docs", "benchmarks", "native", "tools", "."])
def test_nothing_says_to_install_this_project_by_its_bare_name(folder: str) -> None:
    files = (ROOT / folder).glob("*" if folder == "." else "**/*")
    texts = [path for path in files if path.suffix in {".py", ".md", ".yml", ".jinja", ".js"} and path.is_file()]
    assert texts
    assert [path for path in texts if OWN_NAME.search(path.read_text(encoding="utf-8"))] == []


@pytest.mark.parametrize(
    ("line", "bare"),
    [
        ("pip install pytest-rwkvperf", True),
        ("python -m pip install 'pytest-rwkvperf[hub]'", True),
        ('pip install "pytest-rwkvperf[hub] @ git+https://host/owner/pytest-rwkvperf@commit"', False),
        ('pip install "../pytest-rwkvperf[hub]"', False),
        ('pip install ".[hub]"', False),
    ],
)
def test_what_counts_as_the_bare_name(line: str, *, bare: bool) -> None:
    assert bool(OWN_NAME.search(line)) is bare


@pytest.mark.parametrize(
    ("extra", "hint"),
    [
        *((name, registry.load(registry.BUILT_IN[name]).install) for name in ENGINES),
        ("hub", hub._INSTALL),
        ("history", address.INSTALL),
        ("fleet", cluster.INSTALL),
    ],
)
def test_a_hint_names_what_the_extra_brings(extra: str, hint: str) -> None:
    named = re.findall(r"[\w.\[\]-]+", hint.partition("  (")[0].removeprefix("pip install "))
    assert [*map(_name, named)] == [*map(_name, EXTRAS[extra])]


def _name(requirement: str) -> tuple[str, frozenset[str]]:
    parsed = Requirement(requirement)
    return parsed.name.lower().replace("_", "-"), frozenset(parsed.extras)
