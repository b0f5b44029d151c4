"""The plugin is free when it is not used: it loads nothing but pytest and the standard library."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}
LIST_MODULES = """
import json, sys
import pytest
code = pytest.main(["-q", "-p", "no:cacheprovider", *sys.argv[2:]])
with open(sys.argv[1], "w", encoding="utf-8") as file:
    json.dump([int(code), sorted(sys.modules)], file)
"""


def modules(folder: Path, *arguments: str) -> set[str]:
    """What a run of one test that asks for nothing of ours has loaded at its end."""
    (folder / "test_one.py").write_text("def test_one(): pass\n", encoding="utf-8")
    note = folder / "modules.json"
    command = [sys.executable, "-c", LIST_MODULES, str(note), *arguments]
    subprocess.run(command, cwd=folder, env=ENVIRONMENT, check=True)
    code, names = json.loads(note.read_text(encoding="utf-8"))
    assert code == 0
    return set(names)


def test_an_unused_plugin_imports_no_dependencies(tmp_path: Path) -> None:
    added = modules(tmp_path) - modules(tmp_path, "-p", "no:rwkvperf")
    ours = {name for name in added if name.partition(".")[0] == "pytest_rwkvperf"}
    assert "pytest_rwkvperf.plugin" in ours, "the entry point was loaded"
    assert {name.partition(".")[0] for name in added - ours} <= set(sys.stdlib_module_names)
    assert len(ours) <= 17, sorted(ours)


def test_a_measuring_session_imports_no_engine() -> None:
    """The session's own modules: none of them imports an engine, at whatever depth."""
    code = (
        "import sys, pytest_rwkvperf.run.session, pytest_rwkvperf.run.terminal\n"
        "from pytest_rwkvperf.backends import registry\n"
        "[registry.load(place) for place in registry.BUILT_IN.values()]\n"
        "engines = {'torch', 'transformers', 'rwkv', 'rwkv7_hf', 'fla', 'llama_cpp', 'rwkvperf_web_rwkv'}\n"
        "print(*sorted(engines & set(sys.modules)))"
    )
    ended = subprocess.run([sys.executable, "-c", code], env=ENVIRONMENT, capture_output=True, text=True, check=True)
    assert ended.stdout.split() == []
