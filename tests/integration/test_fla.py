"""What of flash-linear-attention needs no GPU: its tensors' names, and its cache of states."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from pytest_rwkvperf.models import derive, synthetic
from pytest_rwkvperf.models.shapes import tensor_specs

if TYPE_CHECKING:
    from pathlib import Path

# In a process of its own, because it imports torch.
LOADING = """
import sys
from pathlib import Path

import torch

from pytest_rwkvperf.backends import fla, hf_model
from pytest_rwkvperf.models import pth_check

path, package = Path(sys.argv[1]), fla.Package()
model = hf_model.load(path, "float32", package.model)
_, stored = pth_check.load(path)
held = model.state_dict()
for name, (tensor, _) in stored.items():
    own = held[hf_model.name_of(name)].flatten().sort().values
    assert torch.equal(own, tensor.float().flatten().sort().values), name
states = [torch.full((2, 3), float(index)) for index in range(3 * 4)]
cache = package.holding(states)
assert [layer["attn_state"] for layer in cache.to_legacy_cache()] == [None] * 4
assert all(map(torch.equal, package.tensors(cache), states))
assert package.cache(4).get_seq_length() == 0
print(len(stored), "tensors")
"""


@pytest.mark.engine("fla")
def test_its_model_takes_every_tensor_of_a_file_and_its_cache_gives_states_back(tmp_path: Path) -> None:
    path = tmp_path / "model.pth"
    model = synthetic.parse("synthetic:nano")
    derive.write(model, path, "pth", "nano", lambda _sentence, _fraction: None)
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", LOADING, path], capture_output=True, text=True, timeout=300, check=False
    )
    assert (done.returncode, done.stderr[-2000:]) == (0, "")
    assert done.stdout == f"{len(tensor_specs(model.shape))} tensors\n"
