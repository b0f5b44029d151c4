"""Record sessions of unchanged code: what `verdicts.py` measures error rates and power on.

    python benchmarks/verdicts/record.py --sessions 24 --every 300 --options=--rwkv-threads=1

A session is one run of the plugin as anybody would start it, saving in a baseline folder of its own; what it stores
(raw times by process, probes, load, steal) is a line of `sessions.jsonl`. The folder is a copy of what the first
session stored (kept in `--seed`), for a run knows from its baseline how close the machine's processors can stand;
nothing else of it enters what is measured. Sessions begin `--every` seconds apart,
so that they meet the machine in different hours and moods. Interrupt it when you like: what is there stays, and a later
call adds to it. Versions must not change between the sessions of one file; another machine is refused.
"""

from __future__ import annotations

import argparse
import json
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import msgspec

from pytest_rwkvperf.machine import fingerprint
from pytest_rwkvperf.store import files

RECORDING = Path(__file__).with_name("sessions.jsonl")
OPTIONS = (
    "--rwkv-backend=llama-cpp,rwkv",
    "--rwkv-model=synthetic:nano",
    "--rwkv-quant=llama-cpp=f16,rwkv=fp32",
    "--rwkv-workload=pp256,tg64",
    "--rwkv-precision=0.1%",
)


def session(asked: argparse.Namespace) -> dict[str, Any]:
    """One run's stored figures."""
    with tempfile.TemporaryDirectory() as folder:
        if asked.seed.exists():
            shutil.copytree(asked.seed, f"{folder}/baselines")
        command = [
            *asked.prefix,
            *(
                sys.executable,
                "-m",
                "pytest",
                "-q",
                "-p",
                "no:cacheprovider",
                *OPTIONS,
                f"--rwkv-budget={asked.budget:g}",
            ),
            *("--rwkv-save-baseline=replace,crowded", f"--rwkv-baseline-dir={folder}/baselines", *asked.options),
        ]
        ended = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        if ended.returncode != 0:
            raise RuntimeError(f"the session ended with {ended.returncode}:\n{ended.stdout[-3000:]}\n{ended.stderr}")
        path = files.path_for(Path(folder) / "baselines", fingerprint.read())
        stored = files.read(path)
        if not asked.seed.exists():
            shutil.copytree(f"{folder}/baselines", asked.seed)
    if stored is None:
        raise RuntimeError(f"the session stored nothing:\n{ended.stdout[-3000:]}")
    return {
        "fingerprint": path.stem,
        "cases": {key: msgspec.to_builtins(case.sessions[0]) for key, case in stored.cases.items()},
    }


def main() -> int:
    """Record until the asked number is reached."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sessions", type=int, default=24, help="to add; default 24")
    parser.add_argument("--every", type=float, default=300.0, help="seconds between two starts; default 300")
    parser.add_argument("--budget", type=float, default=40.0, help="seconds for one session; default 40")
    parser.add_argument("--out", type=Path, default=RECORDING)
    parser.add_argument("--seed", type=Path, help="folder to keep the first session in; default: beside --out")
    parser.add_argument("--options", type=shlex.split, default=[], help="more options of the plugin, as one word")
    parser.add_argument("--prefix", type=shlex.split, default=[], help="a command that each session is run under")
    asked = parser.parse_args()
    asked.seed = asked.seed or asked.out.with_suffix(".seed")
    for number in range(asked.sessions):
        due = time.monotonic() + asked.every
        one = session(asked)
        if asked.out.exists():
            first = json.loads(asked.out.read_text(encoding="utf-8").splitlines()[0])
            if first["fingerprint"] != one["fingerprint"]:
                raise RuntimeError(f"{asked.out} was recorded on {first['fingerprint']}; choose another --out")
        with asked.out.open("a", encoding="utf-8") as out:
            out.write(json.dumps(one, separators=(",", ":")) + "\n")
        counts = ", ".join(f"{key.split(' | ')[0]} {len(s['workloads']['pp256'])}" for key, s in one["cases"].items())
        print(f"session {number + 1} of {asked.sessions}: processes {counts}", flush=True)
        if number + 1 < asked.sessions:
            time.sleep(max(0.0, due - time.monotonic()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
