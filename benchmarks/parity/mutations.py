"""Whether the tests notice when a part of the parity check is taken away.

    python benchmarks/parity/mutations.py

For each mutation the package and its tests are copied to a temporary folder, one line is changed, and the tests of the
check are run there until the first failure, those without a real engine first. Results go to `mutations.md`; the exit
code is 1 when a mutation survives.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
TABLE = Path(__file__).with_suffix(".md")
COPIED = ("pytest_rwkvperf", "tests/unit/oracle", "tests/integration/test_parity.py", "benchmarks/parity/bugs.py")
FILES = ("conftest.py", "pyproject.toml")


@dataclass(frozen=True, slots=True)
class Mutation:
    """A line of `oracle/`, and what it becomes."""

    what: str
    file: str
    old: str
    new: str


MUTATIONS = (
    Mutation("no bound on the relative L2", "bounds.py", "if not found.relative_l2 <= bound.relative_l2:", "if False:"),
    Mutation("no bound on KL", "bounds.py", "if not found.kl <= bound.kl:", "if False:"),
    Mutation("no top token", "bounds.py", "if found.top_matches is False:", "if False:"),
    Mutation("no finiteness", "bounds.py", "if not found.finite:", "if False:"),
    Mutation(
        "generation is not looked at", "bounds.py", '("generation", found.generation)', '("again", found.prefill)'
    ),
    Mutation("the second pass is not compared", "bounds.py", "if not found.repeat <= REPEAT:", "if False:"),
    Mutation("chunks are not compared", "bounds.py", "if not found.rechunked <= 2 * bound.relative_l2:", "if False:"),
    Mutation(
        "depth is not looked at", "bounds.py", "if problem := _broken(found.prefill, bound):", "if problem := '':"
    ),
    Mutation("bounds of fp16 a hundred times wider", "bounds.py", '"fp16"): Bound(', '"fp16"): Bound(100 * '),
    Mutation(
        "the state is not cleared between passes",
        "check.py",
        "    engine.clear()\n    protocol.prefill(engine, prompt[:-DECODED]",
        "    protocol.prefill(engine, prompt[:-DECODED]",
    ),
    Mutation("no token is decoded", "check.py", "engine.decode(token)", "engine.prefill([token])"),
    Mutation("the oracle may be anything", "agreement.py", "if not np.isfinite(oracle).all():", "if False:"),
    Mutation("weights are not dequantized as the engine has them", "emulation.py", "if not emulation:", "if True:"),
    Mutation("the oracle's epsilon is wrong", "rwkv7.py", "GROUP_NORM_EPSILON = 64e-5", "GROUP_NORM_EPSILON = 1e-5"),
    Mutation("the oracle's decay is wrong", "rwkv7.py", "np.exp(-0.5)", "np.exp(-0.51)"),
)


def survives(mutation: Mutation) -> str:
    """Run the tests on a mutated copy; the first failing test, empty when none noticed."""
    with tempfile.TemporaryDirectory(prefix="rwkvperf-mutation-") as name:
        folder = Path(name)
        for part in COPIED:
            source, target = ROOT / part, folder / part
            target.parent.mkdir(parents=True, exist_ok=True)
            (shutil.copytree if source.is_dir() else shutil.copy)(source, target)
        for part in FILES:
            shutil.copy(ROOT / part, folder / part)
        path = folder / "pytest_rwkvperf" / "oracle" / mutation.file
        text = path.read_text(encoding="utf-8")
        if mutation.old not in text:
            raise SystemExit(f"{mutation.file} no longer has {mutation.old!r}; mend this script")
        path.write_text(text.replace(mutation.old, mutation.new), encoding="utf-8")
        for chosen in (
            ["tests/integration", "-m", "not engine"],
            ["tests/unit"],
            ["tests/integration", "-m", "engine"],
        ):
            command = [sys.executable, "-m", "pytest", "-x", "-q", "--tb=no", "-p", "no:cacheprovider", *chosen]
            environment = {**os.environ, "PYTHONPATH": str(folder)}
            done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
            failed = [line for line in done.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))]
            if failed:
                return failed[0].split(" - ")[0].partition(" ")[2]
    return ""


def main() -> int:
    """Mutate, test, record."""
    lines = [
        "# Mutations of the parity check",
        "",
        "Made by `mutations.py`: each change, and the first test that fails with it.",
        "",
        "| change | noticed by |",
        "|---|---|",
    ]
    survivors = 0
    for mutation in MUTATIONS:
        started = time.monotonic()
        test = survives(mutation)
        survivors += not test
        lines.append(f"| {mutation.what} | {f'`{test}`' if test else '**nobody**'} |")
        print(f"{mutation.what}: {test or 'SURVIVED'} ({time.monotonic() - started:.0f} s)", flush=True)
    TABLE.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main())
