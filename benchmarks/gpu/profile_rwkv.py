"""Where rwkv's time goes on CUDA: device time and launches of a decoded token and a prefill, by torch's profiler.

    python benchmarks/gpu/profile_rwkv.py MODEL.pth profile.json

The last figure is the same decode replayed as one CUDA graph: what is left when nothing is launched from the host.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

TOKENS = 16
WARM = 4


def profiled(work: Callable[[], object], steps: int) -> dict[str, Any]:
    """Milliseconds and launches a step, unprofiled wall time first."""
    import torch
    from torch.profiler import ProfilerActivity, profile

    for _ in range(WARM):
        work()
    torch.cuda.synchronize()
    started = time.perf_counter()
    work()
    torch.cuda.synchronize()
    wall = time.perf_counter() - started
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as taken:
        work()
        torch.cuda.synchronize()
    ran = [one for one in taken.key_averages() if one.device_type == torch.autograd.DeviceType.CUDA]
    ran.sort(key=lambda one: -one.self_device_time_total)
    return {
        "wall_ms": wall * 1e3 / steps,
        "device_ms": sum(one.self_device_time_total for one in ran) / 1e3 / steps,
        "launches": sum(one.count for one in ran) / steps,
        "longest": [[one.key[:80], one.count / steps, one.self_device_time_total / 1e3 / steps] for one in ran[:8]],
    }


def graph_milliseconds(decode: Callable[[], object]) -> float:
    """A decoded token as a CUDA graph."""
    import torch

    side: Any = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(WARM):
            decode()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        decode()
    torch.cuda.synchronize()
    started = time.perf_counter()
    for _ in range(50):
        graph.replay()
    torch.cuda.synchronize()
    return (time.perf_counter() - started) / 50 * 1e3


def main() -> None:
    """Profile with and without the package's kernels having been asked for by the environment."""
    os.environ.setdefault("RWKV_CUDA_ON", "1")
    os.environ.update(RWKV_V7_ON="1", RWKV_JIT_ON="1")
    import torch
    from rwkv.model import RWKV

    model = RWKV(str(Path(sys.argv[1]).with_suffix("")), "cuda:0 fp16")
    prompt = list(range(1, 513))
    fixed = model.generate_zero_state()

    def decode() -> None:
        state = model.generate_zero_state()
        for token in range(100, 100 + TOKENS):
            logits, state = model.forward(token, state)
            logits.float().cpu()

    def prefill() -> None:
        model.forward(prompt, model.generate_zero_state())[0].float().cpu()

    found = {
        "device": torch.cuda.get_device_name(0),
        "torch": torch.__version__,
        "decode": profiled(decode, TOKENS),
        "prefill512": profiled(prefill, 1),
        "graph_ms": graph_milliseconds(lambda: model.forward(5, list(fixed))),
    }
    Path(sys.argv[2]).write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print({key: value for key, value in found.items() if key != "longest"}, flush=True)


if __name__ == "__main__":
    main()
