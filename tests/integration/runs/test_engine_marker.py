"""The repository's own rule: a test that needs an engine is skipped without it, and fails without it under CI."""

from __future__ import annotations

from pathlib import Path

import pytest

RULE = (Path(__file__).parents[3] / "conftest.py").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("engine", "ci", "outcome", "told"),
    [
        ("'llama-cpp'", "", {"skipped": 1}, "llama-cpp not installed; `make setup` installs"),
        ("'llama-cpp'", "true", {"errors": 1}, "llama-cpp not installed; `make setup` installs"),
        ("'rwkv', 'llama-cpp'", "", {"skipped": 1}, "llama-cpp not installed"),
        ("'rwkv'", "true", {"passed": 1}, ""),
        ("'vllm'", "", {"errors": 1}, "the engine marker takes names among rwkv, llama-cpp"),
        ("", "", {"errors": 1}, "not nothing"),
    ],
)
def test_the_engine_marker(
    pytester: pytest.Pytester,
    monkeypatch: pytest.MonkeyPatch,
    engine: str,
    ci: str,
    outcome: dict[str, int],
    told: str,
) -> None:
    monkeypatch.setenv("CI", ci)
    present = "engines = lambda: {'rwkv': True, 'llama-cpp': False}\n"
    pytester.makeconftest(RULE + present)
    pytester.makeini("[pytest]\nmarkers = engine(name): needs an engine")
    pytester.makepyfile(f"import pytest\n@pytest.mark.engine({engine})\ndef test_it(): pass")
    result = pytester.runpytest_inprocess("-p", "no:hypothesispytest", "-rs")
    result.assert_outcomes(**outcome)
    assert told in result.stdout.str()
