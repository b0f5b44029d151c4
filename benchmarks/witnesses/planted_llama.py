"""A run names a fault that is planted in llama.cpp's own source, where times alone decide nothing.

    pip download --no-binary :all: --no-deps llama-cpp-python==0.3.36
    python benchmarks/witnesses/planted_llama.py llama_cpp_python-0.3.36.tar.gz

The source is the real one that llama-cpp-python's sdist brings. Each planted change is an edit of a copy, which is
compared with the unchanged source by `rwkvperf ab`, with the witnesses `graph` and `instructions`. Both are built
before the run, alike and without AVX-512, which valgrind does not execute. Results go to `planted_llama.json` and
`planted_llama.md` beside this script.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.append(str(HERE.parent / "bisect"))

from repository import unpacked  # type: ignore[import-not-found]  # noqa: E402 - the folder is no package

from pytest_rwkvperf.environments import sources, trees  # noqa: E402 - as above
from pytest_rwkvperf.machine import fingerprint  # noqa: E402
from pytest_rwkvperf.store import record  # noqa: E402
from pytest_rwkvperf.witnesses.instructions import WITHOUT_AVX512  # noqa: E402

RESULT = HERE / "planted_llama.json"
OPTIONS = (
    "--rwkv-model=synthetic:nano",
    "--rwkv-quant=q8_0",
    "--rwkv-workload=tg32",
    "--rwkv-budget=20",
    "--rwkv-tolerance=1%",
    "--rwkv-witness=graph,instructions",
)
"""Of each run: a short budget, as a CI job has it."""

_STATE = "wkv_state = ggml_view_1d(ctx0, wkv_output, n_embd * head_size * n_seqs, n_embd * n_tokens * sizeof(float));\n"


@dataclass(frozen=True, slots=True)
class Change:
    """An edit of one file, and what a witness is to say of it."""

    title: str
    file: str
    old: str
    new: str
    verdict: str
    named: str
    """The operator that is to be named; empty for none."""


CHANGES = (
    Change(
        "the state is copied once more for each token",
        "src/models/rwkv7-base.cpp",
        _STATE,
        f"{_STATE}    wkv_state = ggml_cpy(ctx0, wkv_state, "
        "ggml_new_tensor_1d(ctx0, GGML_TYPE_F32, n_embd * head_size * n_seqs));\n",
        "MORE WORK",
        "CPY",
    ),
    Change(
        "a comment is added",
        "src/models/rwkv7-base.cpp",
        _STATE,
        f"{_STATE}    // the state after these tokens\n",
        "SAME WORK",
        "",
    ),
)


def planted(source: Path, target: Path, change: Change) -> Path:
    """A copy of the source with a change."""
    shutil.copytree(source, target, symlinks=True)
    path = target / change.file
    text = path.read_text(encoding="utf-8")
    if change.old not in text:
        raise SystemExit(f"{change.file} of this release has no {change.old!r}; plant the change elsewhere")
    path.write_text(text.replace(change.old, change.new), encoding="utf-8")
    return target


def build(folder: Path) -> float:
    """Build a source unless that has been done; the seconds it took."""
    source = sources.of_text(str(folder))
    if source is None:
        raise SystemExit(f"{folder} is no source of an engine")
    return trees.build(source, lambda line: print(line, flush=True)).seconds


def compared(old: Path, new: Path, change: Change, folder: Path) -> dict[str, Any]:
    """What one run says of a change."""
    report, build_seconds, began = folder / "run.json", build(new), time.monotonic()
    command = [sys.executable, "-m", "pytest_rwkvperf.cli", "ab", str(old), str(new), "--", *OPTIONS]
    ended = subprocess.run(
        [*command, f"--rwkv-report=json:{report}", "-q"], capture_output=True, text=True, check=False, cwd=folder
    )
    seconds = time.monotonic() - began
    if not report.exists():
        raise SystemExit(f"{ended.stdout}\n{ended.stderr}")
    ((_, item),) = record.read(report).items()
    sentences = list(item.work.sentences) if item.work else []
    verdict = item.work.verdict if item.work else "not counted"
    return {
        "change": change.title,
        "workload": item.workload,
        "times": item.verdict,
        "work": verdict,
        "told": sentences,
        "as_planted": verdict == change.verdict and any(change.named in each for each in sentences),
        "build_seconds": build_seconds,
        "seconds": round(seconds, 1),
    }


def table(result: dict[str, Any]) -> str:
    """The results as markdown."""
    where = f"{result['machine']}, {result['date']}, {result['sdist']}. Written by `planted_llama.py`."
    lines = [
        "# Changes planted in llama.cpp's source\n",
        f"{where} Each row is one run of `rwkvperf ab UNCHANGED CHANGED -- {' '.join(OPTIONS)}`.\n",
        "| change | workload | by times alone | by witnesses | as planted | s to build | s of the run | what is told |",
        "|---|---|---|---|---|--:|--:|---|",
    ]
    lines += [
        f"| {each['change']} | {each['workload']} | {each['times']} | {each['work']} | "
        f"{'yes' if each['as_planted'] else '**no**'} | {each['build_seconds']:.0f} | {each['seconds']:.0f} | "
        f"{'; '.join(each['told']).replace('|', ' ')} |"
        for each in result["changes"]
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Plant, compare and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sdist", type=Path)
    options = parser.parse_args()
    os.environ["CMAKE_ARGS"] = WITHOUT_AVX512["CMAKE_ARGS"]
    result: dict[str, Any] = {
        "machine": str(fingerprint.read()),
        "date": time.strftime("%Y-%m-%d"),
        "sdist": options.sdist.name,
        "changes": [],
    }
    with tempfile.TemporaryDirectory(prefix="rwkvperf-planted-") as temporary:
        folder = Path(temporary)
        old = unpacked(options.sdist, folder / "unchanged")
        build(old)
        for number, change in enumerate(CHANGES):
            new = planted(old, folder / f"changed{number}", change)
            own = folder / f"run{number}"
            own.mkdir()
            result["changes"].append(compared(old, new, change, own))
            RESULT.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    RESULT.with_suffix(".md").write_text(table(result), encoding="utf-8")
    print(table(result))


if __name__ == "__main__":
    main()
