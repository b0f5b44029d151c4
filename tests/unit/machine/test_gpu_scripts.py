"""What the scripts of benchmarks/gpu make of what they recorded or timed."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import pytest

from pytest_rwkvperf.store.record import dumps
from tests.unit.building import record_of, recorded, report_record

FOLDER = Path(__file__).parents[3] / "benchmarks" / "gpu"
REPORT = runpy.run_path(str(FOLDER / "report.py"))

# report.py


@pytest.mark.parametrize("step", ["slowdown", "threads"])
def test_what_was_only_judged_is_no_figure_and_still_counts_as_a_machine(tmp_path: Path, step: str) -> None:
    """The next machine has a number of its own, though the one before left no figure."""
    told: dict[str, Any] = {}
    figures = []
    for name in (step, step, "llama-cpp"):
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        folder.mkdir()
        record = report_record(recorded(record_of([[10**9] * 3] * 3)))
        (folder / f"{name}.json").write_text(dumps(record), encoding="utf-8")
        told = REPORT["gathered"]([folder], told)
        figures.append([row["machine"].partition(",")[0] for row in told["rows"]])
    assert [one["machine"] for one in told["verdicts"]] == [1, 2, 3]
    assert figures == [[], [], ["machine 3"]]


# proof.py


def test_each_step_of_the_proof_fits_into_a_command_of_nine_minutes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(FOLDER))  # it imports its neighbour
    proof = runpy.run_path(str(FOLDER / "proof.py"))
    assert {*proof["SECONDS"]} < {*proof["STEPS"]}
    # The sweeps of batches come after the proof, and compile kernels for minutes.
    assert max(proof["SECONDS"].get(step, proof["OTHER_SECONDS"]) for step in proof["THE_PROOF"]) < 9 * 60
