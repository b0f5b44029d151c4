"""Bytes and operations of a token against counting them, and the shares that follow."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Literal

import pytest

from pytest_rwkvperf.core.cases import Format, Workload
from pytest_rwkvperf.core.engine import Device
from pytest_rwkvperf.machine import roofline
from pytest_rwkvperf.machine.roofline import Ceilings, TokenWork
from pytest_rwkvperf.machine.watching import GpuConditions
from pytest_rwkvperf.measure.measurement import Measurement
from pytest_rwkvperf.measure.record import Energy
from pytest_rwkvperf.models import synthetic
from pytest_rwkvperf.models.model import ModelFile
from pytest_rwkvperf.models.model_store import ModelStore
from pytest_rwkvperf.models.shapes import SHAPES, tensor_specs
from tests.unit.building import CASE, make_record, make_run, run_of
from tests.unit.machine.recorded import Recorded, recording

NANO, BIG = SHAPES["nano"], SHAPES["2.9b"]
H200 = Ceilings(4.3e12, {"fp16": 763e12, "bf16": 790e12, "tf32": 378e12, "fp32": 51e12}, "torch 2.11")


def file_of(form: Format, path: Path) -> ModelFile:
    return ModelFile(path, form, "a" * 64, BIG, "bf16")


def work(form: Literal["pth", "st"], quant: str) -> TokenWork:
    """What a token costs the engine that reads such files, on a GPU."""
    backend = {"pth": "rwkv", "st": "web-rwkv"}[form]
    found = roofline.work_of(BIG, file_of(form, Path("model")), quant, backend, "gpu")
    assert found is not None
    return found


def test_operations_are_two_for_every_weight_of_a_matrix_and_the_states() -> None:
    matrices = {
        spec.name: spec.size
        for spec in tensor_specs(BIG)
        if len(spec.shape) == 2 and spec.rows > 1 and "r_k" not in spec.name and "emb" not in spec.name
    }
    head = matrices.pop("head.weight")
    found = work("pth", "fp16")
    state = 9 * 64 * BIG.width * BIG.layers
    assert found.head_operations == 2 * head
    assert found.layer_operations - state == pytest.approx(2 * sum(matrices.values()), rel=2e-4), "but layer 0's v1, v2"


@pytest.mark.parametrize(("quant", "size"), [("fp16", 2), ("bf16", 2), ("fp32", 4), ("fp16@kernels", 2)])
def test_bytes_are_every_weight_but_the_embedding_and_the_state_twice(quant: str, size: int) -> None:
    weights = BIG.parameters - 65536 * 2560
    assert work("pth", quant).decode_bytes == size * weights + 2 * 4 * BIG.state_floats


def test_a_quantized_webs_covered_layers_shrink() -> None:
    whole, half, plain = (work("st", quant).decode_bytes for quant in ("int8", "int8@16", "fp16"))
    assert plain - half == pytest.approx((plain - whole) / 2)
    assert plain - whole == pytest.approx(12 * 2560**2 * 32 * (2 - 1 - 4 / 128))


def test_a_ggufs_bytes_are_the_files(tmp_path: Path) -> None:
    class NoTools:
        """Nothing of a synthetic model needs an engine."""

    models = ModelStore(NoTools(), print, tmp_path)  # type: ignore[arg-type]
    model = models.resolve("synthetic:nano")
    file = models.file_for(model, "gguf")
    assert isinstance(model.source, synthetic.SyntheticModel)
    found = roofline.work_of(model.shape, file, "f16", "llama-cpp", "gpu")
    assert found is not None
    weights = file.size_bytes - 2 * 65536 * 256
    assert found.decode_bytes == pytest.approx(weights + 8 * NANO.state_floats, rel=0.1), "but header and vocabulary"


def test_how_a_third_partys_quant_is_held_is_not_known(tmp_path: Path) -> None:
    assert roofline.work_of(BIG, file_of("pth", tmp_path), "int3", "theirs", "gpu") is None
    assert roofline.work_of(BIG, file_of("st", tmp_path), "q3", "theirs", "gpu") is None


@pytest.mark.parametrize(
    ("backend", "quant", "kind", "product"),
    [
        ("rwkv", "fp32@kernels", "gpu", "tf32"),
        ("rwkv", "fp16@kernels", "gpu", "fp16"),
        ("llama-cpp", "f32", "gpu", "fp32"),
        ("llama-cpp", "q4_k_m", "gpu", "fp16"),
        ("llama-cpp", "bf16", "gpu", "bf16"),
        ("llama-cpp", "f16", "cpu", "fp32"),
    ],
)
def test_the_format_of_the_products(backend: str, quant: str, kind: str, product: str) -> None:
    assert roofline.product_format(backend, quant, kind) == product


def test_a_device_that_is_used_up_has_a_share_of_one() -> None:
    one = work("pth", "fp16")
    assert roofline.bandwidth_share(one, H200, 4.3e12 / one.decode_bytes) == pytest.approx(1)
    total = 512 * one.layer_operations + 4 * one.head_operations
    assert roofline.compute_share(one, H200, 512, 128, 512 * 763e12 / total) == pytest.approx(1)
    assert roofline.compute_share(one, replace(H200, product_per_second={}), 512, 128, 1.0) is None


def test_a_step_of_a_batch_reads_the_weights_once_and_every_state() -> None:
    one = work("pth", "fp16")
    assert one.state_bytes == 8 * BIG.state_floats
    weights = one.decode_bytes - one.state_bytes
    assert one.step_bytes(1) == one.decode_bytes
    assert one.step_bytes(32) == weights + 32 * one.state_bytes
    steps = 4.3e12 / one.step_bytes(32)
    assert roofline.bandwidth_share(one, H200, 32 * steps, 32) == pytest.approx(1)
    assert roofline.bandwidth_share(one, H200, 32 * steps, 32) < 0.2 * roofline.bandwidth_share(one, H200, 32 * steps)


def test_a_batchs_shares_are_of_all_its_tokens_and_its_prefills_have_a_head_for_every_share() -> None:
    one = work("pth", "fp16")
    times = {"tg128@b32": [10**9], "pp512@b32": [10**10]}
    record = replace(make_record(run_of(times)), work=one, ceilings=H200)
    generation, prefill = (Measurement(record, Workload.parse(name)) for name in times)
    assert generation.tokens_per_second.median == pytest.approx(128 * 32)
    assert generation.roofline_share == pytest.approx(one.step_bytes(32) * 128 / 4.3e12)
    assert prefill.roofline_share == pytest.approx(
        32 * (512 * one.layer_operations + 32 * one.head_operations) / 10 / H200.product_per_second[one.product]
    )


def test_llama_on_an_h200_as_it_was_measured() -> None:
    """12 382 t/s of pp512 and 188.5 t/s of tg128, F16 on one H200: a tenth of its products, a quarter of its memory.

    An f16 `.gguf` holds as many bytes and gives the same products as rwkv's fp16.
    """
    one = work("pth", "fp16")
    assert roofline.compute_share(one, H200, 512, 512, 12382) == pytest.approx(0.085, abs=0.005)
    assert roofline.bandwidth_share(one, H200, 188.5) == pytest.approx(0.246, abs=0.005)


def test_a_measurement_tells_its_share_energy_and_memory() -> None:
    tape = recording()
    from pytest_rwkvperf.machine.nvml import Gpu, GpuReading

    facts = Gpu(Recorded(*tape["idle"]), None).facts()
    before = GpuReading(0.0, milliwatts=80_000)
    gpu = GpuConditions(facts, before, (GpuReading(1e9 + 0.1, utilisation=90, own_bytes=5 << 30),))
    run = replace(make_run(pp512=[200_000_000], tg128=[10**9]), energy={"tg128": Energy(1280, 3000.0, 10.0)})
    record = replace(
        make_record(run, case=replace(CASE, device="cuda:0"), device=Device("cuda:0", "H", "gpu")), gpu=gpu
    )
    record = replace(record, work=work("pth", "fp16"), ceilings=H200)
    prefill, generation = (Measurement(record, Workload.parse(name)) for name in ("pp512", "tg128"))
    assert generation.roofline_share == pytest.approx(work("pth", "fp16").decode_bytes * 128 / 4.3e12)
    assert prefill.roofline_share == roofline.compute_share(work("pth", "fp16"), H200, 512, 512, 2560)
    assert (generation.joules_per_token, prefill.joules_per_token) == (3000 / 1280, None)
    assert generation.net_joules_per_token == (3000 - 80 * 10) / 1280
    assert prefill.utilisation == generation.utilisation == 0.9
    assert generation.memory.peak_device_bytes == 5 << 30


def test_a_cpus_limits_come_from_its_probes() -> None:
    run = replace(make_run(tg128=[10**9]), reach={"product": 10**7, "sweep": 4 * 10**6})
    faster = replace(run, reach={"product": 10**7, "sweep": 2 * 10**6})
    record = replace(
        make_record(run, faster),
        work=TokenWork(decode_bytes=1e8, layer_operations=1.0, head_operations=1.0, product="fp32"),
    )
    reached = 2 * (8 * (24 << 20)) / 2e-3  # two threads, the fastest process
    assert Measurement(record, Workload.parse("tg128")).roofline_share == pytest.approx(128 * 1e8 / reached)
    assert Measurement(make_record(run), Workload.parse("tg128")).roofline_share is None
