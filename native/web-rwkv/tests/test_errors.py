"""Wrong files, wrong arguments and a panic: one sentence each, and nothing on stderr."""

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import rwkvperf_web_rwkv as binding
from conftest import Tensors, tiny_model
from safetensors.numpy import save_file


def one_sentence(error: BaseException) -> str:
    sentence = str(error)
    assert sentence
    assert "\n" not in sentence
    assert "stack backtrace" not in sentence
    return sentence


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"quant": "q8_0"}, 'quant is "q8_0"'),
        ({"quant": "int8", "quant_layers": 3}, "quant_layers is 3, but int8 takes 1 to 2"),
        ({"quant": "int8", "quant_layers": 0}, "quant_layers is 0"),
        ({"quant": "int8", "quant_layers": -1}, "quant_layers is -1"),
        ({"quant_layers": 1}, "fp16 quantizes no layer"),
        ({"chunk": 0}, "chunk is 0"),
        ({"chunk": -32}, "chunk is -32"),
        ({"chunk": binding.LARGEST_CHUNK + 1}, "chunk is 225, but must be 1 to 224"),
        ({"adapter": 99}, "adapter is 99"),
        ({"adapter": -1}, "adapter is -1"),
    ],
)
def test_setting_out_of_range_is_refused(tiny_st: Path, adapter: int, settings: dict[str, object], named: str) -> None:
    with pytest.raises(ValueError, match=re.escape(named)) as caught:
        binding.Model(tiny_st, **{"adapter": adapter, **settings})  # type: ignore[arg-type]  # wrong on purpose
    one_sentence(caught.value)


@pytest.mark.parametrize(
    ("tokens", "named"),
    [
        ([], "tokens is empty"),
        ([1, 1000], "tokens[1] is 1000, but this model's token ids are 0 to 999"),
        ([-1], "tokens[0] is -1"),
        ([2**40], f"tokens[0] is {2**40}"),
    ],
)
def test_bad_token_is_refused_and_keeps_the_state(fp16: binding.Model, tokens: list[int], named: str) -> None:
    fp16.clear()
    fp16.forward([1, 2, 3])
    expected = fp16.forward([4])
    fp16.clear()
    fp16.forward([1, 2, 3])
    with pytest.raises(ValueError, match=re.escape(named)):
        fp16.forward(tokens)
    assert np.array_equal(fp16.forward([4]), expected)


@pytest.mark.parametrize("tokens", ["abc", [1.5], 3, None])
def test_anything_but_integers_is_a_type_error(fp16: binding.Model, tokens: object) -> None:
    with pytest.raises(TypeError):
        fp16.forward(tokens)  # type: ignore[arg-type]  # wrong on purpose


Damage = Callable[[Path, Path], object]
"""Writes a wrong file, the second path, from the right one."""


def damage_file(change: Callable[[bytes], bytes]) -> Damage:
    return lambda right, wrong: wrong.write_bytes(change(right.read_bytes()))


def damage_tensors(change: Callable[[Tensors], object]) -> Damage:
    def write(_right: Path, wrong: Path) -> None:
        tensors = tiny_model()
        change(tensors)
        save_file(tensors, wrong)

    return write


WRONG_FILES: dict[str, tuple[Damage, str]] = {
    "missing": (lambda _right, _wrong: None, "No such file"),
    "folder": (lambda _right, wrong: wrong.mkdir(), "wrong.st: "),
    "empty": (damage_file(lambda _: b""), "not a whole safetensors file"),
    "truncated": (damage_file(lambda content: content[:-1]), "not a whole safetensors file"),
    "header cut": (damage_file(lambda content: content[:100]), "not a whole safetensors file"),
    "another format": (damage_file(lambda _: b"GGUF" + bytes(1000)), "not a whole safetensors file"),
    "trailing bytes": (damage_file(lambda content: content + b"x"), "not a whole safetensors file"),
    "tensor missing": (
        damage_tensors(lambda tensors: tensors.pop("blocks.1.ffn.value.weight")),
        "tensor blocks.1.ffn.value.weight is missing",
    ),
    "another type": (
        damage_tensors(lambda tensors: tensors.update({"emb.weight": tensors["emb.weight"].astype(np.float32)})),
        "tensor emb.weight is F32, but web-rwkv reads F16 only",
    ),
    "LoRA not transposed": (
        damage_tensors(lambda tensors: tensors.update({"blocks.1.att.g1": tensors["blocks.1.att.g1"].T.copy()})),
        "transposed",
    ),
    "no RWKV": (
        damage_tensors(lambda tensors: [tensors.pop(name) for name in list(tensors) if name != "emb.weight"]),
        "not an RWKV-7 model",
    ),
    "RWKV-6": (
        damage_tensors(lambda tensors: tensors.update({"blocks.0.att.time_decay": tensors.pop("blocks.0.att.r_k")})),
        "RWKV-6 or older",
    ),
}


@pytest.mark.parametrize("case", WRONG_FILES)
def test_wrong_file_is_refused(tmp_path: Path, tiny_st: Path, adapter: int, case: str) -> None:
    damage, fault = WRONG_FILES[case]
    wrong = tmp_path / "wrong.st"
    damage(tiny_st, wrong)
    with pytest.raises(binding.WebRwkvError, match=re.escape(fault)) as caught:
        binding.Model(wrong, adapter=adapter)
    assert one_sentence(caught.value).startswith(str(wrong))


def test_an_adapter_without_subgroups_says_so(tiny_st: Path) -> None:
    """Gl has no subgroup operations in wgpu 29."""
    indices = [each.index for each in binding.adapters() if each.backend == "gl"]
    if not indices:
        pytest.skip("no Gl adapter on this machine")
    with pytest.raises(binding.WebRwkvError, match=rf"^adapter {indices[0]} \(.*gl\) lacks .*SUBGROUP$"):
        binding.Model(tiny_st, adapter=indices[0])


# Makes web-rwkv panic: without address space for another thread, its runtime panics in a worker thread.
PANIC = """
import resource, sys
import rwkvperf_web_rwkv as binding

def address_space(spare):
    pages = int(open("/proc/self/statm").read().split()[0])
    return pages * resource.getpagesize() + spare

def attempt():
    try:
        model.forward([1])
    except binding.WebRwkvError as error:
        print(error)
    else:
        print("no error")

model = binding.Model(sys.argv[1], adapter=int(sys.argv[2]))
unlimited = resource.getrlimit(resource.RLIMIT_AS)
resource.setrlimit(resource.RLIMIT_AS, (address_space(1 << 20), unlimited[1]))  # a thread's stack takes 2 MiB
attempt()
resource.setrlimit(resource.RLIMIT_AS, unlimited)
attempt()
try:
    model.clear()
except binding.WebRwkvError as error:
    print(error)
model = binding.Model(sys.argv[1], adapter=int(sys.argv[2]))
attempt()
"""


def run_python(code: str, *arguments: object, folder: Path) -> subprocess.CompletedProcess[str]:
    # libwayland, loaded by one of Mesa's Vulkan layers, prints to stderr if XDG_RUNTIME_DIR is not set.
    environment = {**os.environ, "XDG_RUNTIME_DIR": str(folder), "RUST_BACKTRACE": "full"}
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment, check=False)


@pytest.mark.skipif(sys.platform != "linux", reason="limits the address space by way of /proc")
def test_panic_is_one_sentence_and_makes_the_model_unusable(tiny_st: Path, adapter: int, tmp_path: Path) -> None:
    process = run_python(PANIC, tiny_st, adapter, folder=tmp_path)
    assert (process.returncode, process.stderr) == (0, "")
    panicked, poisoned, uncleared, reloaded = process.stdout.splitlines()
    assert panicked.startswith("web-rwkv panicked: ")
    assert "thread" in panicked
    assert poisoned == f"this model is unusable, load it again: {panicked}"
    assert uncleared == poisoned
    assert reloaded == "no error"


def test_the_interpreter_exits_cleanly_with_a_model_alive(tiny_st: Path, adapter: int, tmp_path: Path) -> None:
    code = "import rwkvperf_web_rwkv as b, sys; m = b.Model(sys.argv[1], adapter=int(sys.argv[2])); m.forward([1])"
    process = run_python(code, tiny_st, adapter, folder=tmp_path)
    assert (process.returncode, process.stdout, process.stderr) == (0, "", "")
