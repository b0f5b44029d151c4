"""Compare our `.gguf` writer with llama.cpp's own converter: keys, their types and values, and every tensor.

    python benchmarks/models/compare_converter.py --converter llama.cpp/convert_hf_to_gguf.py --record

The converter is upstream's script, from a checkout of llama.cpp or from the source distribution of llama-cpp-python;
nothing of it is in this repository. It needs torch, transformers and sentencepiece in the interpreter that runs this
script, and the vocabulary file of the rwkv package. It reads a folder in Hugging Face's layout, which is written here
from the same synthetic weights: the tensors' names are those of its own table (`gguf-py/gguf/tensor_mapping.py`,
entries marked rwkv7). Results go to `compare_converter.json` and `.md` beside this script. Ends with status 1 when
anything differs but the model's name.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from datetime import datetime, timezone
from hashlib import sha256
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import gguf
import ml_dtypes
import numpy as np
from safetensors.numpy import save_file

from pytest_rwkvperf.models import derive, synthetic
from pytest_rwkvperf.models.model import Precision
from pytest_rwkvperf.models.shapes import SHAPES, tensor_specs

if TYPE_CHECKING:
    from pytest_rwkvperf.models.shapes import Shape
    from pytest_rwkvperf.models.synthetic import SyntheticModel

RESULTS = Path(__file__).with_suffix(".json")
TABLE = Path(__file__).with_suffix(".md")
NAMED_BY_USER = frozenset({"general.name"})
"""The key that says what the model is called; the converter makes a title of the folder's name."""


def hugging_face_name(canonical: str) -> str:
    """The converter's name of a canonical tensor."""
    fixed = {"emb.weight": "model.embeddings.weight", "head.weight": "head.weight"}
    if canonical in fixed:
        return fixed[canonical]
    if canonical.startswith("blocks.0.ln0."):
        return canonical.replace("blocks.0.ln0", "model.pre_ln")
    return "model." + canonical.replace(".att.", ".attention.")


def write_folder(model: SyntheticModel, folder: Path) -> None:
    """The model as the converter reads it, in bfloat16 as published; layer 0 without its unused tensors."""
    tensors = {
        hugging_face_name(spec.name): model.rows(spec, 0, spec.rows, "bf16")
        .reshape(spec.shape)
        .astype(ml_dtypes.bfloat16)
        for spec in tensor_specs(model.shape)
    }
    save_file(tensors, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(config(model.shape)), encoding="utf-8")
    found = find_spec("rwkv")
    if found is None or not found.submodule_search_locations:
        sys.exit("The rwkv package has the vocabulary file that the converter reads; install it first.")
    name = "rwkv_vocab_v20230424.txt"
    (folder / name).write_bytes((Path(found.submodule_search_locations[0]) / name).read_bytes())


def config(shape: Shape) -> dict[str, Any]:
    """The hyperparameters that `conversion/rwkv.py`, `Rwkv7Model.set_gguf_parameters` asks for."""
    return {
        "architectures": ["Rwkv7ForCausalLM"],
        "model_type": "rwkv7",
        "hidden_size": shape.width,
        "num_hidden_layers": shape.layers,
        "head_size": shape.head_size,
        "layer_norm_epsilon": 1e-5,
        "intermediate_size": shape.feed_forward,
        "lora_rank_decay": shape.rank_w,
        "lora_rank_iclr": shape.rank_a,
        "lora_rank_value_residual_mix": shape.rank_v,
        "lora_rank_gate": shape.rank_g,
        "vocab_size": shape.vocabulary,
        "torch_dtype": "bfloat16",
    }


def contents(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Keys with type and value, and tensors with type, shape and a digest of their bytes."""
    reader = gguf.GGUFReader(path)
    keys = {}
    for name, entry in reader.fields.items():
        if not name.startswith("GGUF."):
            value = entry.contents()
            text = value if isinstance(value, str | int | float | bool) else sha256(repr(value).encode()).hexdigest()
            keys[name] = [[kind.name for kind in entry.types], text]
    tensors = {
        tensor.name: [
            tensor.tensor_type.name,
            tensor.shape.tolist(),
            sha256(np.ascontiguousarray(tensor.data).tobytes()).hexdigest(),
        ]
        for tensor in reader.tensors
    }
    return keys, tensors


def compare(shape: str, precision: Precision, converter: Path, folder: Path) -> dict[str, Any]:
    """Both writers on one model; what differs, by name."""
    model = synthetic.parse(f"{synthetic.PREFIX}{shape}")
    source = folder / f"{shape}-hf"
    if not source.exists():
        source.mkdir()
        write_folder(model, source)
    theirs, ours = folder / "theirs.gguf", folder / "ours.gguf"
    command = [sys.executable, str(converter), str(source), "--outfile", str(theirs), "--outtype", precision]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"The converter failed:\n{done.stderr[-3000:]}")
    derive.write(model, ours, "gguf", f"{shape}-hf", lambda *_: None, precision)
    (their_keys, their_tensors), (our_keys, our_tensors) = contents(theirs), contents(ours)
    result = {
        "keys": len(our_keys),
        "tensors": len(our_tensors),
        "keys_that_differ": differing(their_keys, our_keys),
        "tensors_that_differ": differing(their_tensors, our_tensors),
        "same_tensor_order": list(their_tensors) == list(our_tensors),
        "bytes": [theirs.stat().st_size, ours.stat().st_size],
    }
    theirs.unlink()
    ours.unlink()
    return result


def differing(theirs: dict[str, Any], ours: dict[str, Any]) -> dict[str, Any]:
    """What is not the same in both, with both sides."""
    names = sorted(set(theirs) | set(ours))
    return {name: [theirs.get(name), ours.get(name)] for name in names if theirs.get(name) != ours.get(name)}


def record(results: dict[str, dict[str, Any]], converter: Path) -> None:
    """Write the JSON file and the table."""
    about = {
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "converter_sha256": sha256((converter.parent / "conversion" / "rwkv.py").read_bytes()).hexdigest(),
        "versions": {name: version(name) for name in ("gguf", "torch", "transformers", "llama-cpp-python", "rwkv")},
    }
    RESULTS.write_text(json.dumps({"conditions": about, "results": results}, indent=1) + "\n", encoding="utf-8")
    lines = [
        "# Our .gguf against llama.cpp's converter",
        "",
        "Made by `compare_converter.py`; versions and both sides of every difference are in `compare_converter.json`.",
        "Compared are names, types and values of keys, and names, types, shapes and bytes of tensors.",
        "",
        "| shape | type | keys | that differ | tensors | that differ |",
        "|---|---|--:|---|--:|---|",
    ]
    for name, row in results.items():
        keys, tensors = (", ".join(row[f"{what}_that_differ"]) or "none" for what in ("keys", "tensors"))
        lines.append(f"| {name.replace(' ', ' | ')} | {row['keys']} | {keys} | {row['tensors']} | {tensors} |")
    TABLE.write_text("\n".join(lines) + "\n", encoding="utf-8")


def main() -> None:
    """Compare every unquantized type of one or more shapes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--converter", type=Path, required=True, help="llama.cpp's convert_hf_to_gguf.py")
    parser.add_argument("--shape", choices=list(SHAPES), action="append", help="may be repeated; default nano")
    parser.add_argument("--record", action="store_true", help="write compare_converter.json and .md")
    options = parser.parse_args()
    results = {}
    with tempfile.TemporaryDirectory(prefix="rwkvperf-converter-") as folder:
        for shape in options.shape or ["nano"]:
            for precision in get_args(Precision):
                row = compare(shape, precision, options.converter.resolve(), Path(folder))
                results[f"{shape} {precision}"] = row
                print(f"{shape} {precision}: {json.dumps(row)}", flush=True)
    if options.record:
        record(results, options.converter.resolve())
    wrong = [
        row for row in results.values() if row["tensors_that_differ"] or set(row["keys_that_differ"]) - NAMED_BY_USER
    ]
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
