"""The nano model in three formats, read by the libraries that own the formats and run by the engines."""

from __future__ import annotations

import ast
import dataclasses
import json
import pickle
import subprocess
import sys
import zipfile
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from pytest_rwkvperf.core.errors import ModelError
from pytest_rwkvperf.models import derive, gguf, gguf_header, pth, st
from pytest_rwkvperf.models.hashing import content_hash
from pytest_rwkvperf.models.model_store import ModelStore
from pytest_rwkvperf.models.shapes import tensor_specs
from pytest_rwkvperf.models.synthetic import SyntheticModel
from pytest_rwkvperf.worker.tools import WorkerTools

if TYPE_CHECKING:
    from pytest_rwkvperf.core.cases import Format
    from pytest_rwkvperf.models.model import Model, ModelFile, Precision
    from pytest_rwkvperf.models.weights import Array

TOKENS = [int(token) for token in np.random.Philox(key=64).random_raw(64) % 65530]


def silent(_sentence: str, _fraction: float) -> None:
    """Progress that is not shown."""


TOOLS = WorkerTools(silent)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> ModelStore:
    return store(tmp_path_factory.mktemp("modèles 模型"))


def store(cache: Path) -> ModelStore:
    return ModelStore(TOOLS, silent, cache)


@pytest.fixture(scope="module")
def nano(models: ModelStore) -> Model:
    return models.resolve("synthetic:nano")


@pytest.fixture(scope="module")
def files(nano: Model, models: ModelStore) -> dict[Format, ModelFile]:
    kinds: tuple[Format, ...] = ("pth", "st", "gguf")
    return {kind: models.file_for(nano, kind) for kind in kinds}


def run(script: str, *arguments: str) -> str:
    """The last line that a script prints, in a process of its own: engines have global state and print."""
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout.splitlines()[-1]


TORCH = """
import sys, torch
loaded = torch.load(sys.argv[1], weights_only=True, mmap=True, map_location="cpu")
assert all(tensor.dtype == torch.bfloat16 and tensor.is_contiguous() for tensor in loaded.values())
assert all(tensor.data_ptr() % 64 == 0 for tensor in loaded.values())
import numpy
numpy.savez(sys.argv[2], **{name: tensor.float().numpy() for name, tensor in loaded.items()})
print("ok")
"""

RWKV = """
import os, sys, json
os.environ.update(RWKV_V7_ON="1", RWKV_JIT_ON="1", RWKV_CUDA_ON="0")
import numpy
from rwkv.model import RWKV
model = RWKV(sys.argv[1][:-4], "cpu " + sys.argv[3])
logits, _ = model.forward(json.loads(sys.argv[4]), None)
numpy.save(sys.argv[2], logits.float().numpy())
print("ok")
"""

LLAMA = """
import sys, json, numpy, llama_cpp as l
l.llama_backend_init()
model = l.llama_model_load_from_file(sys.argv[1].encode(), l.llama_model_default_params())
assert model, "not loaded"
tokens = json.loads(sys.argv[4])
context = l.llama_init_from_model(model, l.llama_context_default_params())
held = (l.llama_token * len(tokens))(*tokens)
assert l.llama_decode(context, l.llama_batch_get_one(held, len(tokens))) == 0
size = l.llama_vocab_n_tokens(l.llama_model_get_vocab(model))
logits = numpy.ctypeslib.as_array(l.llama_get_logits(context), (size,))
numpy.save(sys.argv[2], logits)
print("ok")
"""

# Permutes one tensor of each kind and tells how far the logits move. ln0 is left out: rwkv applies it while loading.
SENSITIVITY = """
import os, re, sys, json
os.environ.update(RWKV_V7_ON="1", RWKV_JIT_ON="1", RWKV_CUDA_ON="0")
import torch
from rwkv.model import RWKV
torch.set_num_threads(1)  # beside other tests, several wait for each other in a loop
model = RWKV(sys.argv[1][:-4], "cpu fp32")
tokens = json.loads(sys.argv[2])
forward = lambda tokens: model.forward(tokens, None)[0].double()
base = forward(tokens)
moved = lambda logits: float((logits - base).norm() / base.norm())
kinds = {re.sub(r"blocks\\.[0-9]+", "blocks", name): tensor for name, tensor in model.z.items() if tensor.numel()}
found = {"order of tokens": moved(forward(tokens[1::-1] + tokens[2:])), "one token": moved(forward([7] + tokens[1:]))}
for kind, tensor in kinds.items():
    if "ln0" not in kind:
        before = tensor.clone()
        tensor.copy_(before.flatten().roll(1 + before.numel() // 3).reshape(before.shape))
        found[kind] = moved(forward(tokens))
        tensor.copy_(before)
assert moved(forward(tokens)) == 0, "a tensor was not put back"
print(json.dumps(found))
"""

WEB_RWKV = """
import sys, json, numpy, rwkvperf_web_rwkv as web
adapters = sorted(web.adapters(), key=lambda adapter: adapter.backend != "vulkan")
model = web.Model(sys.argv[1], adapter=adapters[0].index, chunk=32)
numpy.save(sys.argv[2], model.forward(json.loads(sys.argv[4])))
print("ok")
"""


def logits(script: str, file: ModelFile, target: Path, precision: str = "fp32") -> Array:
    run(script, str(file.path), str(target), precision, json.dumps(TOKENS))
    values: Array = np.load(target)
    return values


def distance(computed: Array, expected: Array) -> float:
    """Relative L2."""
    return float(np.linalg.norm(computed - expected) / np.linalg.norm(expected))


@pytest.fixture(scope="module")
def expected_logits(files: dict[Format, ModelFile], tmp_path_factory: pytest.TempPathFactory) -> Array:
    return logits(RWKV, files["pth"], tmp_path_factory.mktemp("rwkv") / "logits.npy")


@pytest.mark.engine("rwkv")
def test_torch_loads_the_pth_safely_and_finds_the_values(
    nano: Model, files: dict[Format, ModelFile], tmp_path: Path
) -> None:
    run(TORCH, str(files["pth"].path), str(tmp_path / "tensors.npz"))
    assert isinstance(nano.source, SyntheticModel)
    with np.load(tmp_path / "tensors.npz") as tensors:
        assert list(tensors) == [spec.name for spec in tensor_specs(nano.shape)]
        for spec in tensor_specs(nano.shape):
            assert tensors[spec.name].shape == spec.shape
            assert (tensors[spec.name] == nano.source.rows(spec, 0, spec.rows, "f32").reshape(spec.shape)).all()


def test_safetensors_and_gguf_find_the_values(nano: Model, files: dict[Format, ModelFile]) -> None:
    from gguf import GGUFReader
    from safetensors.numpy import load_file

    assert isinstance(nano.source, SyntheticModel)
    turned = load_file(files["st"].path)
    packed = {tensor.name: np.asarray(tensor.data) for tensor in GGUFReader(files["gguf"].path).tensors}
    name = "blocks.2.att.a1"
    spec = next(spec for spec in tensor_specs(nano.shape) if spec.name == name)
    values = nano.source.rows(spec, 0, spec.rows, "f16")
    assert (values == turned[name].T).all()
    assert (values == packed["blk.2.time_mix_a1.weight"].reshape(turned[name].shape).T).all()


@pytest.mark.engine("rwkv")
def test_every_format_has_the_same_hash(nano: Model, files: dict[Format, ModelFile], models: ModelStore) -> None:
    hashes = {kind: models.resolve(str(file.path)).content_hash for kind, file in files.items()}
    assert hashes == dict.fromkeys(files, nano.content_hash)
    assert content_hash(st.read_header(files["st"].path).weights(), silent, "") == nano.content_hash
    assert content_hash(gguf_header.read_header(files["gguf"].path).weights(), silent, "") == nano.content_hash


@pytest.mark.engine("rwkv")
def test_every_tensor_and_token_changes_the_logits(files: dict[Format, ModelFile]) -> None:
    moved = json.loads(run(SENSITIVITY, str(files["pth"].path), json.dumps(TOKENS[:16])))
    assert len(moved) == 2 + 37
    assert {kind: value for kind, value in moved.items() if value < 3e-3} == {}


@pytest.mark.engine("rwkv", "llama-cpp")
def test_llama_cpp_computes_the_same(files: dict[Format, ModelFile], expected_logits: Array, tmp_path: Path) -> None:
    computed = logits(LLAMA, files["gguf"], tmp_path / "logits.npy")
    assert computed.shape == expected_logits.shape
    assert distance(computed, expected_logits) < 2e-3


@pytest.mark.engine("rwkv", "web-rwkv")
def test_web_rwkv_computes_the_same(files: dict[Format, ModelFile], expected_logits: Array, tmp_path: Path) -> None:
    computed = logits(WEB_RWKV, files["st"], tmp_path / "logits.npy")
    assert distance(computed, expected_logits) < 4e-3


@pytest.mark.engine("rwkv", "llama-cpp")
def test_llama_cpps_quantizer_reads_the_file(
    nano: Model, models: ModelStore, expected_logits: Array, tmp_path: Path
) -> None:
    """The other quants are in test_engines."""
    file = models.file_for(nano, "gguf", "q4_0")
    assert (file.quant, file.shape) == ("q4_0", nano.shape)
    assert file.content_hash != nano.content_hash
    assert 1e-4 < distance(logits(LLAMA, file, tmp_path / "logits.npy"), expected_logits) < 0.4


@pytest.mark.engine("rwkv", "llama-cpp")
def test_a_users_pth_becomes_the_other_formats(files: dict[Format, ModelFile], nano: Model, tmp_path: Path) -> None:
    own = tmp_path / "我的 model.pth"
    own.write_bytes(files["pth"].path.read_bytes())
    own_models = store(tmp_path / "cache")
    model = own_models.resolve(str(own))
    kinds: tuple[Format, ...] = ("st", "gguf")
    made = [own_models.file_for(model, kind) for kind in kinds]
    assert [file.content_hash for file in made] == [nano.content_hash] * 2
    assert made[0].path.read_bytes() == files["st"].path.read_bytes()


@pytest.mark.engine("rwkv")
def test_a_pickle_that_would_run_code_is_refused_and_does_not_run(
    files: dict[Format, ModelFile], tmp_path: Path
) -> None:
    marker, hostile = tmp_path / "ran", tmp_path / "hostile.pth"
    call = f"cbuiltins\nexec\n(Vopen({str(marker)!r}, 'w').close()\ntR.".encode()
    pickle.loads(call)  # noqa: S301 - shows that an unchecked load runs its code
    marker.unlink()
    with zipfile.ZipFile(files["pth"].path) as source, zipfile.ZipFile(hostile, "w") as target:
        for entry in source.infolist():
            target.writestr(entry.filename, call if entry.filename.endswith("data.pkl") else source.read(entry))
    with pytest.raises(ModelError, match=r"hostile\.pth"):
        store(tmp_path / "cache").resolve(str(hostile))
    assert not marker.exists()


@pytest.mark.engine("rwkv")
def test_vocabulary_is_that_of_the_rwkv_package() -> None:
    """By the rule of llama.cpp's `conversion/base.py`, `_set_vocab_rwkv_world`."""
    spec = find_spec("rwkv")
    assert spec is not None
    assert spec.submodule_search_locations is not None
    vocabulary = Path(spec.submodule_search_locations[0]) / "rwkv_vocab_v20230424.txt"
    expected = [b"<s>"]
    for line in vocabulary.read_text(encoding="utf-8").splitlines(keepends=True):
        token = ast.literal_eval(line[line.index(" ") : line.rindex(" ")].strip())
        data = token.encode() if isinstance(token, str) else token
        expected.append(repr(data)[2:-1].encode())
    assert list(gguf.world_tokens()) == expected


TORCH_SAVES = """
import sys, collections, torch
loaded = lambda: torch.load(sys.argv[1], weights_only=True)
def changed(name, change):
    weights = loaded()
    weights[name] = change(weights[name])
    return weights
ordered = collections.OrderedDict(loaded())
ordered._metadata = collections.OrderedDict()
flat, at, shared = torch.cat([value.reshape(-1) for value in loaded().values()]), 0, {}
for name, value in loaded().items():
    shared[name] = flat[at : at + value.numel()].view(value.shape)
    at += value.numel()
def spoilt(matrix):
    matrix[7, 7] = float("nan")
    return matrix
for kind, value in {
    "ordered": ordered,
    "parameters": {name: torch.nn.Parameter(value, requires_grad=False) for name, value in loaded().items()},
    "shared": shared,
    "nan": changed("blocks.2.ffn.key.weight", spoilt),
    "rwkv6": {**loaded(), "blocks.0.att.time_maa_x": torch.zeros(3)},
    "vocabulary": changed("head.weight", lambda head: head[:50277].clone()),
    "integers": changed("ln_out.bias", lambda bias: bias.to(torch.int64)),
    "nested": {"state_dict": loaded()},
    "list": [torch.zeros(3)],
    "other": {"layer.weight": torch.zeros(3)},
}.items():
    torch.save(value, f"{sys.argv[2]}/{kind}.pth")
print("ok")
"""


@pytest.fixture(scope="module")
def saved(files: dict[Format, ModelFile], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of files that torch itself wrote."""
    folder = tmp_path_factory.mktemp("saved")
    run(TORCH_SAVES, str(files["pth"].path), str(folder))
    return folder


@pytest.mark.engine("rwkv")
@pytest.mark.parametrize("kind", ["ordered", "parameters", "shared"])
def test_files_that_torch_wrote_can_be_read(kind: str, saved: Path, files: dict[Format, ModelFile]) -> None:
    path = saved / f"{kind}.pth"
    assert TOOLS.inspect_pth(path).content_hash == files["pth"].content_hash
    assert set(pth.read_header(path).tensors) == set(pth.read_header(files["pth"].path).tensors)


@pytest.mark.engine("rwkv")
@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("nan", r"'blocks\.2\.ffn\.key\.weight' holds NaN"),
        ("rwkv6", "RWKV-6"),
        ("vocabulary", r"'head\.weight' has shape \[50277, 256\], expected \[65536, 256\]"),
        ("integers", "holds long values"),
        ("nested", "is a training checkpoint; save its 'state_dict' alone"),
        ("list", "holds a list, expected a dictionary of tensors"),
        ("other", "not RWKV-7"),
    ],
)
def test_torch_files_that_are_not_models_are_refused(kind: str, reason: str, saved: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=rf"{kind}\.pth.*{reason}"):
        store(tmp_path / "cache").resolve(str(saved / f"{kind}.pth"))


@pytest.mark.engine("rwkv")
@pytest.mark.parametrize("precision", ["bf16", "f32"])
def test_pth_survives_conversion_to_gguf_and_back(
    precision: Precision, files: dict[Format, ModelFile], nano: Model, tmp_path: Path
) -> None:
    there, back = tmp_path / "there.gguf", tmp_path / "back.pth"
    assert TOOLS.convert_pth(files["pth"].path, there, "gguf", precision).rounded == 0
    assert derive.write(gguf_header.read_header(there).weights(), back, "pth", "back", silent).rounded == 0
    assert TOOLS.inspect_pth(back).content_hash == nano.content_hash


@pytest.mark.engine("rwkv")
def test_rwkv_runs_a_pth_whose_tensors_differ_in_precision(
    files: dict[Format, ModelFile], expected_logits: Array, tmp_path: Path
) -> None:
    mixed = tmp_path / "mixed.pth"
    derive.write(gguf_header.read_header(files["gguf"].path).weights(), mixed, "pth", "mixed", silent)
    kinds = {tensor.kind for tensor in pth.read_header(mixed).tensors.values()}
    assert kinds == {"f16", "f32"}
    computed = logits(RWKV, dataclasses.replace(files["pth"], path=mixed), tmp_path / "logits.npy", "fp32")
    assert distance(computed, expected_logits) < 1e-5


@pytest.mark.engine("rwkv", "llama-cpp")
@pytest.mark.parametrize("precision", ["f32", "bf16"])
def test_llama_cpp_runs_the_other_precisions(
    precision: str, nano: Model, models: ModelStore, expected_logits: Array, tmp_path: Path
) -> None:
    file = models.file_for(nano, "gguf", precision)
    assert (file.quant, file.content_hash) == (precision, nano.content_hash)
    assert distance(logits(LLAMA, file, tmp_path / "logits.npy"), expected_logits) < 2e-2


@pytest.mark.engine("rwkv")
def test_users_gguf_is_converted_for_the_other_engines(
    files: dict[Format, ModelFile], nano: Model, tmp_path: Path
) -> None:
    own = tmp_path / "own.gguf"
    own.write_bytes(files["gguf"].path.read_bytes())
    own_models = store(tmp_path / "cache")
    model = own_models.resolve(str(own))
    kinds: tuple[Format, ...] = ("pth", "st")
    made = [own_models.file_for(model, kind) for kind in kinds]
    assert {file.content_hash for file in made} == {nano.content_hash}
    assert made[1].path.read_bytes() == files["st"].path.read_bytes()
