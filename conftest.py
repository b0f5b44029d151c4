"""What holds for every test of this repository: pytester, and the rule for tests that need real engines."""

from __future__ import annotations

import os
from importlib.util import find_spec

import pytest

pytest_plugins = ["pytester"]

ENGINES = {
    "rwkv": ("rwkv", "torch"),
    "llama-cpp": ("llama_cpp",),
    "web-rwkv": ("rwkvperf_web_rwkv",),
}
"""What must be importable for each engine; found, never imported, so that no test process holds an engine."""


def pytest_runtest_setup(item: pytest.Item) -> None:
    """A test marked `engine` is skipped where its engine is not installed, and fails there under CI."""
    for marker in item.iter_markers("engine"):
        unknown = [name for name in marker.args if name not in ENGINES]
        if unknown or not marker.args:
            pytest.fail(f"the engine marker takes names among {', '.join(ENGINES)}, not {unknown or 'nothing'}")
        missing = [name for name in marker.args if not all(map(find_spec, ENGINES[name]))]
        if missing:
            reason = f"{' and '.join(missing)} not installed; `make setup` installs every engine it can"
            (pytest.fail if os.environ.get("CI") else pytest.skip)(reason)
