r"""The table of a run that measured a GPU with several numbers of sequences, and its compact record.

    pytest rwkvperf --rwkv-backend=llama-cpp --rwkv-model=synthetic:2.9b --rwkv-quant=f16 --rwkv-device=cuda:0 \
        --rwkv-workload=tg32 --rwkv-batch=1,2,4,8,16,32,64,128,256 --rwkv-budget=1 --rwkv-report=run.json
    python benchmarks/gpu/batches.py run.json --name batches_h200

Writes NAME.json and NAME.md beside this. The least times of a step follow from the ceilings that the run measured:
weights and states moved once each (`machine/roofline.py`), and the products of one token of each sequence.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_rwkvperf.measure.measurement import ceilings_of
from pytest_rwkvperf.reports import batches
from pytest_rwkvperf.store import record as records

if TYPE_CHECKING:
    from pytest_rwkvperf.reports.batches import Point, Scaling

HERE = Path(__file__).resolve().parent


def row(scaling: Scaling, point: Point) -> dict[str, Any]:
    """One number of sequences; times in seconds."""
    measured, batch, item = scaling.case.measured, point.workload.batch, point.item
    ceilings, rate, step = ceilings_of(measured), item.typical_rate, item.inter_token_seconds
    operations = measured.work.layer_operations + measured.work.head_operations
    return {
        "batch": batch,
        "rate": rate.median,
        "low": rate.low,
        "high": rate.high,
        "step_p50": step.p50,
        "step_p99": step.p99,
        "sequence_bytes": point.sequence_bytes,
        "joules_per_token": item.joules_per_token,
        "net_joules_per_token": item.net_joules_per_token,
        "mbu": item.roofline_share,
        "least_moving": measured.work.step_bytes(batch) / ceilings.copy_bytes_per_second,
        "least_computing": batch * operations / ceilings.product_per_second[measured.work.product],
    }


def summary(path: Path) -> dict[str, Any]:
    """The compact record of a run of one case and one generation."""
    record = records.read(path)
    (scaling,) = batches.scalings(record)
    measured = scaling.case.measured
    ceilings = ceilings_of(measured)
    return {
        "started": record.started,
        "command": [word for word in record.command if "/" not in word],
        "backend": measured.case.backend,
        "quant": measured.case.quant,
        "chunk": measured.case.chunk,
        "threads": measured.case.threads,
        "device": measured.device.name,
        "model": measured.model.name,
        "versions": measured.versions,
        "workload": str(scaling.workload),
        "copy_bytes_per_second": ceilings.copy_bytes_per_second,
        "weight_bytes": measured.work.decode_bytes - measured.work.state_bytes,
        "state_bytes": measured.work.state_bytes,
        "rows": [row(scaling, point) for point in scaling.points],
    }


def table(found: dict[str, Any]) -> str:
    """Markdown."""
    versions = ", ".join(f"{name} {version}" for name, version in found["versions"].items())
    single = found["rows"][0]["rate"]
    weights, state = found["weight_bytes"] / 1e9, found["state_bytes"] / 1e6
    bandwidth = found["copy_bytes_per_second"] / 1e12
    lines = [
        f"# Many sequences at once: {found['backend']} {found['quant']} on an {found['device']}",
        "",
        f"{found['model']}, {found['workload']}, {versions}, {found['started']}; made by `batches.py`.",
        "",
        f"A step moves {weights:.2f} GB of weights and {state:.1f} MB of state for each sequence, at most at",
        f"{bandwidth:.2f} TB/s. *p50* and *p99* are times of a step, *moving* and *products* the least ones that the",
        "measured ceilings allow.",
        "",
        "| sequences | t/s ± 95 % | over 1 | p50 | p99 | moving | products | MBU | memory each | J/token (net) |",
        "|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for each in found["rows"]:
        error = (each["high"] - each["low"]) / 2 / each["rate"]
        held = f"{each['sequence_bytes'] / 2**20:.0f} MiB" if each["sequence_bytes"] else ""
        times = (f"{each[name] * 1e3:.3g} ms" for name in ("step_p50", "step_p99", "least_moving", "least_computing"))
        lines.append(
            f"| {each['batch']} | {each['rate']:.4g} ± {error:.1%} | {each['rate'] / single:.2f} | {' | '.join(times)} "
            f"| {each['mbu']:.0%} | {held} | {each['joules_per_token']:.3g} ({each['net_joules_per_token']:.3g}) |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    """Write both."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("record", type=Path)
    parser.add_argument("--name", required=True)
    options = parser.parse_args()
    found = summary(options.record)
    (HERE / f"{options.name}.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    text = table(found)
    (HERE / f"{options.name}.md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
