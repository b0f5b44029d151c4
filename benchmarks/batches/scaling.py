r"""How a generation's speed grows with the number of sequences: the table of a case, and its compact record.

    pytest rwkvperf --rwkv-backend=llama-cpp --rwkv-model=synthetic:2.9b --rwkv-quant=f16 --rwkv-device=cuda:0 \
        --rwkv-workload=tg32 --rwkv-batch=1,2,4,8,16,32,64,128,256 --rwkv-budget=1 --rwkv-report=run.json
    python benchmarks/batches/scaling.py run.json --name h200

Writes NAME.json and NAME.md beside this. Several records of one case are joined, so that a long sweep can be made in
parts; each part has a single sequence too, with which its numbers of sequences are compared. The least times of a step
follow from the ceilings that the run measured: weights and states moved once each (`machine/roofline.py`), and the
products of one token of each sequence. A software graphics driver has no ceilings, and only a GPU's energy is read.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_rwkvperf.machine import roofline
from pytest_rwkvperf.measure.measurement import ceilings_of
from pytest_rwkvperf.reports import batches
from pytest_rwkvperf.store import record as records

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pytest_rwkvperf.reports.batches import Point, Scaling

HERE = Path(__file__).resolve().parent
SAME = ("backend", "quant", "chunk", "threads", "device", "processor", "model", "versions", "workload")
"""What the parts of a sweep have in common."""


def row(scaling: Scaling, point: Point) -> dict[str, Any]:
    """One number of sequences; times in seconds, None for what is not known."""
    measured, batch, item = scaling.case.measured, point.workload.batch, point.item
    rate, step = item.typical_rate, item.inter_token_seconds
    assert measured and rate and step  # noqa: S101, PT018 - each point of a scaling has been measured
    ceilings, work = ceilings_of(measured), measured.work
    moving, computing = roofline.step_seconds(work, ceilings, batch) if ceilings and work else (None, None)
    return {
        "batch": batch,
        "rate": rate.median,
        "over_one": point.factor,
        "low": rate.low,
        "high": rate.high,
        "step_p50": step.p50,
        "step_p99": step.p99,
        "least_moving": moving,
        "least_computing": computing,
        "mbu": item.roofline_share,
        "sequence_bytes": point.sequence_bytes,
        "joules_per_token": item.joules_per_token,
        "net_joules_per_token": item.net_joules_per_token,
    }


def joined(paths: Sequence[Path]) -> dict[str, Any]:
    """The compact record of a case whose sweep is in one or more records.

    Raises:
        SystemExit: they are of different cases.
    """
    first, *others = map(summary, paths)
    rows = {each["batch"]: each for each in first["rows"]}
    for path, other in zip(paths[1:], others, strict=True):
        differs = [name for name in SAME if other[name] != first[name]]
        if differs:
            raise SystemExit(f"{path} is of another case than {paths[0]}: another {', '.join(differs)}")
        rows = {each["batch"]: each for each in other["rows"]} | rows
        first["command"] += ["and", *other["command"]]
    return {**first, "rows": [rows[batch] for batch in sorted(rows)]}


def summary(path: Path) -> dict[str, Any]:
    """The compact record of the generation of a run of one case."""
    record = records.read(path)
    (scaling,) = (each for each in batches.scalings(record) if each.workload.kind == "generation")
    measured = scaling.case.measured
    assert measured  # noqa: S101 - each scaling has been measured
    ceilings, work = ceilings_of(measured), measured.work
    if work is None:
        raise SystemExit(f"{path} has no count of the bytes of a step")
    return {
        "started": record.started,
        "command": [word for word in record.command if "/" not in word],
        "backend": measured.case.backend,
        "quant": measured.case.quant,
        "chunk": measured.case.chunk,
        "threads": measured.case.threads,
        "device": measured.device.name,
        "processor": record.fingerprint.cpu,
        "model": measured.model.name,
        "versions": measured.versions,
        "workload": str(scaling.workload),
        "copy_bytes_per_second": ceilings.copy_bytes_per_second if ceilings else None,
        "weight_bytes": work.decode_bytes - work.state_bytes,
        "state_bytes": work.state_bytes,
        "rows": [row(scaling, point) for point in scaling.points],
    }


def table(found: dict[str, Any]) -> str:
    """Markdown."""
    versions = ", ".join(f"{name} {version}" for name, version in found["versions"].items())
    place = found["device"] if found["device"] not in {"cpu", "CPU"} else found["processor"]
    weights, state = found["weight_bytes"] / 1e9, found["state_bytes"] / 1e6
    lines = [
        f"# Many sequences at once: {found['backend']} {found['quant']}, {place}",
        "",
        f"{found['model']}, {found['workload']}, {versions}, {found['threads']} threads, {found['started']}; made by",
        f"`scaling.py`. A step moves {weights:.2f} GB of weights and {state:.1f} MB of state for each sequence. *p50*",
        "and *p99* are times of a step, *moving* and *products* the least that the measured ceilings allow.",
        "",
        "| sequences | t/s ± 95 % | over 1 | p50 | p99 | moving | products | MBU | memory each | J/token (net) |",
        "|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    return "\n".join([*lines, *map(_line, found["rows"])]) + "\n"


def _line(each: dict[str, Any]) -> str:
    error = f" ± {(each['high'] - each['low']) / 2 / each['rate']:.0%}" if each["high"] else ""
    names = ("step_p50", "step_p99", "least_moving", "least_computing")
    times = [f"{each[name] * 1e3:.3g} ms" if each[name] else "" for name in names]
    share = f"{each['mbu']:.0%}" if each["mbu"] else ""
    held = f"{each['sequence_bytes'] / 2**20:.0f} MiB" if each["sequence_bytes"] else ""
    joules = f"{each['joules_per_token']:.3g} ({each['net_joules_per_token']:.3g})" if each["joules_per_token"] else ""
    speed = (f"{each['rate']:.4g}{error}", f"{each['over_one']:.2f}")
    return f"| {' | '.join([str(each['batch']), *speed, *times, share, held, joules])} |"


def main() -> None:
    """Write both."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("records", type=Path, nargs="+")
    parser.add_argument("--name", required=True)
    options = parser.parse_args()
    found = joined(options.records)
    (HERE / f"{options.name}.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    text = table(found)
    (HERE / f"{options.name}.md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
