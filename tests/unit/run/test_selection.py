"""Which items a test gets: the real backends' words, devices made up here, no engine."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_rwkvperf.backends import llama_cpp, rwkv_pip, web_rwkv
from pytest_rwkvperf.core.cases import Question, Workload
from pytest_rwkvperf.core.engine import Backend, Device
from pytest_rwkvperf.core.errors import OptionError
from pytest_rwkvperf.core.software import Software
from pytest_rwkvperf.run.discovery import FoundEngine, MissingEngine
from pytest_rwkvperf.run.option_checks import check_devices, check_quants, check_settings
from pytest_rwkvperf.run.selection import (
    ModelLimits,
    Request,
    beyond_batch,
    check_batches,
    devices,
    items,
    read_markers,
    shrunk_workloads,
    unfit,
    without_quant,
)
from tests.unit.building import SETTINGS

if TYPE_CHECKING:
    from pytest_rwkvperf.run.settings import Settings

CPU = Device("cpu", "CPU", "cpu")
GPU = Device("cuda:0", "NVIDIA H200", "gpu")
VULKAN = Device("vulkan:0", "NVIDIA H200", "gpu")
LLVMPIPE = Device("vulkan:0", "llvmpipe", "software")


def found(backend: Backend, *there: Device) -> FoundEngine:
    return FoundEngine(
        backend,
        f"module:{backend.name}",
        "python",
        {backend.name: "1"},
        there,
        Software("CPython 3.11.7", "linux-x86_64"),
    )


RWKV = found(rwkv_pip.BACKEND, CPU)
LLAMA = found(llama_cpp.BACKEND, CPU)
WEB = found(web_rwkv.BACKEND, LLVMPIPE)
ALL = (RWKV, LLAMA, WEB)
BACKENDS = tuple(engine.backend for engine in ALL)
ANY_FORMAT = ModelLimits("synthetic:nano", frozenset({"pth", "gguf", "st"}))
ONLY_GGUF = ModelLimits("mine.gguf", frozenset({"gguf"}), "q4_k_m")

DEFAULTS = replace(SETTINGS, backend="all")


def chosen(
    settings: Settings = DEFAULTS,
    request: Request | None = None,
    engines: tuple[FoundEngine, ...] = ALL,
    limits: ModelLimits = ANY_FORMAT,
) -> list[str]:
    return [item.id for item in items(settings, request or Request(), engines, limits, default_threads=2)]


def quants_of(ids: list[str], backend: str) -> list[str]:
    return list(dict.fromkeys(one.removeprefix(f"{backend}-").split("-")[0] for one in ids if one.startswith(backend)))


# Defaults


def test_defaults_are_standard_quants_and_pp512_tg128() -> None:
    assert chosen() == [
        "web-rwkv-fp16-vulkan:0-pp32",
        "web-rwkv-fp16-vulkan:0-tg8",
        "web-rwkv-int8-vulkan:0-pp32",
        "web-rwkv-int8-vulkan:0-tg8",
        "rwkv-fp32-cpu-pp512",
        "rwkv-fp32-cpu-tg128",
        "rwkv-bf16-cpu-pp512",
        "rwkv-bf16-cpu-tg128",
        "llama-cpp-f16-cpu-pp512",
        "llama-cpp-f16-cpu-tg128",
        "llama-cpp-q8_0-cpu-pp512",
        "llama-cpp-q8_0-cpu-tg128",
    ]


def test_a_software_adapter_is_measured_with_less_unless_workloads_are_asked_for_and_a_sentence_says_so() -> None:
    def sentence(settings: Settings, request: Request, device: Device) -> str:
        asked = [
            Question(item, 0.05) for item in items(settings, request, (found(web_rwkv.BACKEND, device),), ANY_FORMAT, 2)
        ]
        return shrunk_workloads(settings, asked, lambda _: device)

    asked = replace(DEFAULTS, workloads=("pp512",))
    assert chosen(asked, engines=(WEB,)) == ["web-rwkv-fp16-vulkan:0-pp512", "web-rwkv-int8-vulkan:0-pp512"]
    assert [one[-4:] for one in chosen(request=Request(workloads=("tg16",)), engines=(WEB,))] == ["tg16"] * 2
    assert sentence(DEFAULTS, Request(), LLVMPIPE) == (
        "web-rwkv on vulkan:0: a software adapter, measured with pp32 and tg8, which suffice to check the path; "
        "--rwkv-workload=pp512,tg128 measures it as the others"
    )
    assert sentence(asked, Request(), LLVMPIPE) == sentence(DEFAULTS, Request(), VULKAN) == ""


def test_an_engines_own_tool_measures_a_software_adapter_as_any_other() -> None:
    ids = chosen(replace(DEFAULTS, protocols=("native",), quants=("fp16",)), engines=(WEB,))
    assert ids == ["web-rwkv-fp16-vulkan:0-native-pp512", "web-rwkv-fp16-vulkan:0-native-tg128"]


def test_software_adapters_come_first() -> None:
    software = found(rwkv_pip.BACKEND, Device("gl:0", "llvmpipe", "software"))
    ids = chosen(replace(DEFAULTS, quants=("fp16", "f16"), workloads=("pp1",)), engines=(LLAMA, WEB, software))
    assert ids == ["web-rwkv-fp16-vulkan:0-pp1", "rwkv-fp16-gl:0-pp1", "llama-cpp-f16-cpu-pp1"]


def test_a_case_has_the_models_name_and_default_threads_and_chunk() -> None:
    cases = {item.case.backend: item.case for item in items(DEFAULTS, Request(), ALL, ANY_FORMAT, default_threads=6)}
    assert {case.model for case in cases.values()} == {"synthetic:nano"}
    assert {case.threads for case in cases.values()} == {6}
    assert {name: case.chunk for name, case in cases.items()} == {"rwkv": 512, "llama-cpp": 512, "web-rwkv": 128}


def test_standard_quants_depend_on_the_device() -> None:
    engines = (found(rwkv_pip.BACKEND, GPU, CPU), found(web_rwkv.BACKEND, VULKAN))
    ids = chosen(engines=engines)
    assert quants_of(ids, "rwkv") == ["fp16", "bf16"]
    assert quants_of(ids, "web-rwkv") == ["fp16", "int8", "nf4"]
    assert quants_of(chosen(), "web-rwkv") == ["fp16", "int8"]


def test_the_default_device_is_the_engines_first() -> None:
    engine = found(rwkv_pip.BACKEND, GPU, CPU)
    assert devices(DEFAULTS, engine) == [GPU]
    assert devices(replace(DEFAULTS, devices=("cpu",)), engine) == [CPU]
    assert devices(replace(DEFAULTS, devices=("cpu", "cuda:0")), engine) == [GPU, CPU]


def test_lists_of_threads_and_devices_multiply() -> None:
    settings = replace(
        DEFAULTS, threads=(1, 2), devices=("cpu", "cuda:0"), quants=("fp32", "bf16"), workloads=("pp1", "tg1", "tg2")
    )
    engine = found(rwkv_pip.BACKEND, GPU, CPU)
    found_items = items(settings, Request(), [engine], ANY_FORMAT, default_threads=7)
    assert len(found_items) == len(set(found_items)) == 2 * 2 * 2 * 3
    assert {item.case.threads for item in found_items} == {1, 2}


# Quants


def test_a_quant_selects_the_engines_that_know_it() -> None:
    ids = chosen(replace(DEFAULTS, quants=("fp16", "q8_0", "int8@2")))
    assert quants_of(ids, "rwkv") == ["fp16"]
    assert quants_of(ids, "llama-cpp") == ["q8_0"]
    assert quants_of(ids, "web-rwkv") == ["fp16", "int8@2"]


def test_an_engine_without_the_selected_quants_has_no_items() -> None:
    assert {one.split("-")[0] for one in chosen(replace(DEFAULTS, quants=("q8_0",)))} == {"llama"}


def test_quants_for_one_backend_do_not_change_the_others() -> None:
    ids = chosen(replace(DEFAULTS, quants_by_backend={"llama-cpp": ("f16", "q5_k_m")}))
    assert quants_of(ids, "llama-cpp") == ["f16", "q5_k_m"]
    assert quants_of(ids, "rwkv") == ["fp32", "bf16"]
    assert quants_of(ids, "web-rwkv") == ["fp16", "int8"]


def test_quants_for_one_backend_override_the_general_ones() -> None:
    ids = chosen(replace(DEFAULTS, quants=("fp16",), quants_by_backend={"rwkv": ("fp32",)}))
    assert quants_of(ids, "rwkv") == ["fp32"]
    assert quants_of(ids, "web-rwkv") == ["fp16"]


@pytest.mark.parametrize("quant", ["q9_9", "FP16", "fp16 ", "int8@0", "int8@-1", "int8@", "int8@x", "fp16@3", "int8@٣"])
def test_an_unknown_quant_is_refused_with_the_known_ones(quant: str) -> None:
    for settings, request in (
        (replace(DEFAULTS, quants=("fp16", quant)), Request()),
        (DEFAULTS, Request(quants=(quant,))),
    ):
        with pytest.raises(OptionError, match=r"is known to none .*; allowed: rwkv: fp32, bf16, fp16; llama") as caught:
            check_quants(settings, request, BACKENDS)
        assert repr(quant) in str(caught.value)


@pytest.mark.parametrize(
    ("quant", "meant", "of_llama_cpp"),
    [
        ("Q8_0", "q8_0", "q8_0"),
        ("Q4_K_M", "q4_k_m", "q4_k_m"),
        ("q8-0", "q8_0", "q8_0"),
        ("fp-16", "fp16", "f16"),
        ("BF16 ", "bf16", "bf16"),
        ("INT8@3", "int8@3", None),
        ("gptq", None, None),
    ],
)
def test_a_quant_in_another_spelling_is_asked_back(quant: str, meant: str | None, of_llama_cpp: str | None) -> None:
    asked = (
        (replace(DEFAULTS, quants=(quant,)), meant),
        (replace(DEFAULTS, quants_by_backend={"llama-cpp": (quant,)}), of_llama_cpp),
    )
    for settings, expected in asked:
        with pytest.raises(OptionError) as caught:
            check_quants(settings, Request(), BACKENDS)
        assert ("did you mean" in str(caught.value)) == (expected is not None)
        assert expected is None or f"did you mean {expected!r}?" in str(caught.value)


def test_quants_for_an_unused_backend_or_unknown_to_it_are_refused() -> None:
    with pytest.raises(OptionError, match=r"'vllm', which --rwkv-backend did not select \(rwkv, llama-cpp, web-rwkv\)"):
        check_quants(replace(DEFAULTS, quants_by_backend={"vllm": ("f16",)}), Request(), BACKENDS)
    with pytest.raises(OptionError, match=r"--rwkv-quant=rwkv=q8_0: unknown to it; allowed: rwkv: fp32"):
        check_quants(replace(DEFAULTS, quants_by_backend={"rwkv": ("q8_0",)}), Request(), BACKENDS)


def test_a_general_quant_missing_from_a_backends_own_list_is_refused() -> None:
    settings = replace(DEFAULTS, quants=("fp32", "q8_0"), quants_by_backend={"llama-cpp": ("f16", "q5_k_m")})
    with pytest.raises(
        OptionError, match=r"=q8_0 would be left out, as llama-cpp .*; instead of it write llama-cpp=f16\+q5_k_m\+q8_0$"
    ):
        check_quants(settings, Request(), BACKENDS)


def test_known_quants_are_accepted() -> None:
    settings = replace(DEFAULTS, quants=("fp32", "q8_0", "nf4"), quants_by_backend={"web-rwkv": ("int8@31", "nf4")})
    check_quants(settings, Request(quants=("f16",)), BACKENDS)


# Markers


def marked(*arguments: Any, **keywords: Any) -> Request:  # noqa: ANN401 - whatever a user may write
    return read_markers([pytest.mark.rwkv(*arguments, **keywords).mark])


def test_a_markers_lists_replace_the_defaults() -> None:
    request = marked(quant=["q8_0"], workload=["tg8", "pp8@d4"], tolerance="3%")
    assert request == Request(("q8_0",), ("tg8", "pp8@d4"), 0.03)
    assert chosen(request=request) == ["llama-cpp-q8_0-cpu-tg8", "llama-cpp-q8_0-cpu-pp8@d4"]


def test_an_empty_marker_equals_none() -> None:
    assert read_markers([]) == marked() == Request()


def test_a_marker_takes_a_word_and_drops_duplicates() -> None:
    assert marked(quant="f16", workload=("pp1", "tg1", "pp1"), tolerance=0.02) == Request(
        ("f16",), ("pp1", "tg1"), 0.02
    )


@pytest.mark.parametrize(
    ("arguments", "keywords", "message"),
    [
        (("f16",), {}, "knows no argument 'f16'; allowed: quant=, workload=, tolerance="),
        (
            (),
            {"quants": ["f16"]},
            r"knows no argument quants \(did you mean .quant.\?\); allowed: quant=, workload=, tolerance=",
        ),
        ((), {"quant": 8}, "quant= takes a list of strings, not 8"),
        ((), {"quant": ["f16", 8]}, r"quant= takes a list of strings, not \['f16', 8\]"),
        ((), {"workload": None}, "workload= takes a list of strings, not None"),
        ((), {"workload": {"pp1": 1}}, "workload= takes a list of strings"),
        ((), {"tolerance": "5"}, "^the rwkv marker's tolerance='5' is not a share"),
        ((), {"tolerance": 0}, "^the rwkv marker's tolerance='0' is not a share"),
        ((), {"tolerance": math.nan}, "^the rwkv marker's tolerance='nan' is not a share"),
    ],
)
def test_a_malformed_marker_is_refused(arguments: tuple[Any, ...], keywords: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        marked(*arguments, **keywords)


def test_a_markers_malformed_workload_is_refused() -> None:
    with pytest.raises(OptionError, match="workload 'pp0' is not understood"):
        chosen(request=Request(workloads=("pp0",)))


QUANTS = st.lists(st.sampled_from(["f16", "q8_0", "q4_0", "q5_k_m"]), unique=True).map(tuple)
TEXTS = st.lists(st.sampled_from(["pp512", "tg128", "pp16", "tg8@d4"]), unique=True).map(tuple)


@given(QUANTS.filter(bool), QUANTS.filter(bool), TEXTS.filter(bool), TEXTS.filter(bool))
def test_options_narrow_a_markers_lists(
    asked: tuple[str, ...], marker: tuple[str, ...], workloads: tuple[str, ...], own: tuple[str, ...]
) -> None:
    settings = replace(DEFAULTS, quants=asked, workloads=workloads)
    cut = items(settings, Request(marker, own), [LLAMA], ANY_FORMAT, default_threads=2)
    expected = [(quant, text) for quant in marker if quant in asked for text in own if text in workloads]
    assert [(item.case.quant, str(item.workload)) for item in cut] == expected


def test_a_backends_quants_narrow_its_marker() -> None:
    settings = replace(DEFAULTS, quants_by_backend={"llama-cpp": ("q8_0",)})
    ids = chosen(settings, Request(quants=("f16", "q8_0", "fp32")))
    assert quants_of(ids, "llama-cpp") == ["q8_0"]
    assert quants_of(ids, "rwkv") == ["fp32"]


# Chunks, devices, models


def test_an_unsupported_chunk_is_refused() -> None:
    limit = web_rwkv.BACKEND.max_chunk
    assert limit is not None
    check_settings(replace(DEFAULTS, chunk=limit), BACKENDS)
    check_settings(replace(DEFAULTS, chunk=limit + 1), BACKENDS[:2])
    with pytest.raises(OptionError, match=f"--rwkv-chunk={limit + 1} .* web-rwkv computes rightly; at most {limit},"):
        check_settings(replace(DEFAULTS, chunk=limit + 1), BACKENDS)


def with_set(backend: str, **values: tuple[str, ...]) -> Settings:
    given = {name.replace("_", "-"): each for name, each in values.items()}
    return replace(DEFAULTS, settings_by_backend={backend: given}, workloads=("pp16",))


def test_every_combination_of_an_engines_own_settings_is_a_case() -> None:
    swept = replace(with_set("llama-cpp", ubatch=("8", "64"), mmap=("off",)), quants=("f16", "int8"))
    assert chosen(swept) == [
        "web-rwkv-int8-vulkan:0-pp16",
        "llama-cpp-f16-cpu-mmap-off-ubatch8-pp16",
        "llama-cpp-f16-cpu-mmap-off-ubatch64-pp16",
    ]


def test_every_combination_is_measured_with_every_batch() -> None:
    swept = replace(with_set("llama-cpp", ubatch=("8", "64")), quants=("f16",), batches=(1, 4))
    assert chosen(swept, engines=(LLAMA,)) == [
        "llama-cpp-f16-cpu-ubatch8-pp16",
        "llama-cpp-f16-cpu-ubatch8-pp16@b4",
        "llama-cpp-f16-cpu-ubatch64-pp16",
        "llama-cpp-f16-cpu-ubatch64-pp16@b4",
    ]


def test_an_engines_own_chunk_goes_before_the_common_one() -> None:
    swept = replace(with_set("web-rwkv", chunk=("32", "64")), chunk=128)
    found = items(swept, Request(), ALL, ANY_FORMAT, default_threads=2)
    assert {item.case.chunk for item in found if item.case.backend == "web-rwkv"} == {32, 64}
    assert {item.case.chunk for item in found if item.case.backend != "web-rwkv"} == {128}
    assert all(item.case.settings == () for item in found)
    check_settings(replace(swept, chunk=999), BACKENDS)


@pytest.mark.parametrize(
    ("backend", "name", "value", "told"),
    [
        (
            "llama.cpp",
            "ubatch",
            "8",
            r"names 'llama.cpp', which --rwkv-backend did not select .did you mean 'llama-cpp'",
        ),
        (
            "llama-cpp",
            "u-batch",
            "8",
            r"llama-cpp.u-batch is no setting of llama-cpp .did you mean 'ubatch'.*chunk .*mmap",
        ),
        ("llama-cpp", "ubatch", "0", "llama-cpp.ubatch='0' cannot be; allowed: a number from 1 to 9999999 .tokens"),
        ("llama-cpp", "mmap", "no", "allowed: off, on"),
        ("llama-cpp", "cpu-mask", "3", "such as 0x3"),
        ("llama-cpp", "ctk", "q8_0", "RWKV has no KV cache"),
        ("llama-cpp", "batch", "64", "is the chunk here"),
        ("rwkv", "strategy", "cuda fp16 *20 -> cpu fp32", "puts every layer there"),
        ("rwkv", "chunk", "0", "rwkv.chunk='0' cannot be"),
        ("web-rwkv", "chunk", "225", "a number from 1 to 224"),
        ("web-rwkv", "token-chunk-size", "64", "it is the chunk"),
    ],
)
def test_a_wrong_setting_is_refused_with_what_is_allowed(backend: str, name: str, value: str, told: str) -> None:
    with pytest.raises(OptionError, match=told) as caught:
        check_settings(with_set(backend, **{name: (value,)}), BACKENDS)
    assert str(caught.value).startswith("--rwkv-set")


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"ubatch": ("64", "128"), "chunk": ("64",)}, "with ubatch=128: ubatch is at most the chunk, 64 tokens"),
        ({"n_gpu_layers": ("2",)}, "llama-cpp on cpu with n-gpu-layers=2: layers are put on a GPU"),
        ({"cpu_mask": ("0x" + "f" * 100,)}, "this process may use the processors 0x"),
    ],
)
def test_settings_that_mean_nothing_together_are_refused(values: dict[str, tuple[str, ...]], told: str) -> None:
    with pytest.raises(OptionError, match=told):
        chosen(with_set("llama-cpp", **values), engines=(LLAMA,))


def test_layers_are_put_on_a_gpu() -> None:
    assert chosen(with_set("llama-cpp", n_gpu_layers=("0", "20")), engines=(found(llama_cpp.BACKEND, GPU),))[-1:] == [
        "llama-cpp-q8_0-cuda:0-n-gpu-layers20-pp16"
    ]


def test_a_given_chunk_applies_to_every_engine() -> None:
    cut = items(replace(DEFAULTS, chunk=64), Request(), ALL, ANY_FORMAT, default_threads=2)
    assert {item.case.chunk for item in cut} == {64}


def test_an_engine_that_knows_none_of_the_quants_is_not_measured_and_named() -> None:
    settings = replace(DEFAULTS, workloads=("tg8",), quants=("f16", "q8_0"))
    assert chosen(settings, engines=(RWKV,)) == []
    told = "rwkv is not measured: it knows fp32, bf16, fp16, not f16, q8_0"
    assert without_quant(settings, rwkv_pip.BACKEND) == told
    assert without_quant(settings, llama_cpp.BACKEND) == without_quant(DEFAULTS, rwkv_pip.BACKEND) == ""
    own = replace(settings, quants_by_backend={"rwkv": ("fp32",)})
    assert without_quant(own, rwkv_pip.BACKEND) == ""


def test_an_engine_without_batches_is_measured_without_them() -> None:
    assert (llama_cpp.BACKEND.max_batch, rwkv_pip.BACKEND.max_batch) == (256, 1)
    settings = replace(DEFAULTS, workloads=("tg128", "tg128@b8", "pp16@b257"), quants=("fp32", "f16"))
    assert chosen(settings, engines=(RWKV, LLAMA)) == [
        "rwkv-fp32-cpu-tg128",
        "llama-cpp-f16-cpu-tg128",
        "llama-cpp-f16-cpu-tg128@b8",
    ]
    alone = "rwkv computes one sequence at a time, so it cannot measure tg128@b8, pp16@b257"
    assert beyond_batch(settings, Request(), rwkv_pip.BACKEND) == alone
    limit = "llama-cpp computes at most 256 sequences at once, so it cannot measure pp16@b257"
    assert beyond_batch(settings, Request(), llama_cpp.BACKEND) == limit
    fewer = "ask for at most 256 in --rwkv-batch and after @b, or leave llama-cpp out of --rwkv-backend"
    with pytest.raises(OptionError, match=f"{limit}; {fewer}"):
        check_batches(settings, Request(), [llama_cpp.BACKEND])
    with pytest.raises(OptionError, match=f"{alone}; leave --rwkv-batch and @b out, or leave rwkv out of"):
        check_batches(settings, Request(), [rwkv_pip.BACKEND])
    check_batches(replace(settings, workloads=("tg128", "tg128@b8")), Request(), [llama_cpp.BACKEND])


def test_an_engine_for_which_only_batches_are_asked_is_left_out_with_a_reason() -> None:
    settings = replace(DEFAULTS, batches=(4,))
    assert unfit(settings, LLAMA, ANY_FORMAT) is None
    reason = "rwkv computes one sequence at a time, so it cannot measure pp512@b4, tg128@b4; leave --rwkv-batch and @b"
    assert unfit(settings, RWKV, ANY_FORMAT) == MissingEngine("rwkv", f"{reason} out")
    too_many = unfit(replace(settings, batches=(512,)), LLAMA, ANY_FORMAT)
    assert too_many is not None
    assert too_many.reason.endswith("pp512@b512, tg128@b512; ask for at most 256 in --rwkv-batch and after @b")
    assert chosen(settings, engines=(RWKV,)) == []


def test_batches_multiply_the_workloads_that_name_none() -> None:
    settings = replace(DEFAULTS, batches=(1, 8), quants=("f16",))
    assert [one.removeprefix("llama-cpp-f16-cpu-") for one in chosen(settings, engines=(LLAMA,))] == [
        "pp512",
        "pp512@b8",
        "tg128",
        "tg128@b8",
    ]
    named = replace(settings, workloads=("tg128@b1", "tg16@d4@b2", "tg16@d4", "tg16@d4@b8"))
    assert [one.removeprefix("llama-cpp-f16-cpu-") for one in chosen(named, engines=(LLAMA,))] == [
        "tg128",
        "tg16@d4@b2",
        "tg16@d4",
        "tg16@d4@b8",
    ]


def test_a_markers_batches_are_refused_too_unless_the_options_leave_them_out() -> None:
    asked = Request(workloads=("tg8", "tg8@b4"))
    assert beyond_batch(DEFAULTS, asked, rwkv_pip.BACKEND).endswith("cannot measure tg8@b4")
    assert beyond_batch(replace(DEFAULTS, workloads=("tg8",)), asked, rwkv_pip.BACKEND) == ""
    assert beyond_batch(replace(DEFAULTS, workloads=("pp9",), batches=(4,)), asked, rwkv_pip.BACKEND) == ""


def test_an_engines_own_tool_measures_no_batches() -> None:
    settings = replace(DEFAULTS, protocols=("native",), workloads=("tg8", "tg8@b4"), quants=("f16",))
    assert chosen(settings, engines=(LLAMA,)) == ["llama-cpp-f16-cpu-native-tg8"]
    assert beyond_batch(replace(settings, protocols=("native",)), Request(), llama_cpp.BACKEND) == ""


def test_an_unknown_device_is_refused_with_the_known_ones() -> None:
    check_devices(replace(DEFAULTS, devices=("cpu", "vulkan:0")), ALL)
    with pytest.raises(OptionError) as caught:
        check_devices(replace(DEFAULTS, devices=("cpu", "cuda:7")), ALL)
    assert str(caught.value) == (
        "--rwkv-device='cuda:7' is not a device of any engine here; "
        "there are rwkv: cpu; llama-cpp: cpu; web-rwkv: vulkan:0"
    )


def test_an_engine_without_the_device_is_left_out_with_a_reason() -> None:
    settings = replace(DEFAULTS, devices=("vulkan:0", "cuda:0"))
    assert unfit(settings, WEB, ANY_FORMAT) is None
    assert unfit(settings, RWKV, ANY_FORMAT) == MissingEngine(
        "rwkv", "rwkv has none of --rwkv-device=vulkan:0,cuda:0; it lists cpu"
    )


def test_a_gguf_only_model_leaves_the_other_engines_out() -> None:
    assert unfit(DEFAULTS, LLAMA, ONLY_GGUF) is None
    instead = "; give the model's .pth, .st or F16 .gguf file"
    assert unfit(DEFAULTS, RWKV, ONLY_GGUF) == MissingEngine(
        "rwkv", f"rwkv reads .pth, and mine.gguf can only be had as gguf{instead}"
    )
    assert unfit(DEFAULTS, WEB, ONLY_GGUF) == MissingEngine(
        "web-rwkv", f"web-rwkv reads .st, and mine.gguf can only be had as gguf{instead}"
    )
    assert chosen(limits=ONLY_GGUF) == ["llama-cpp-q4_k_m-cpu-pp512", "llama-cpp-q4_k_m-cpu-tg128"]


def test_a_model_whose_shape_an_engine_cannot_load_leaves_it_out_with_the_reason() -> None:
    small = ModelLimits("pile.pth", frozenset({"pth", "st"}), reasons={"gguf": "50304 tokens are too few"})
    assert unfit(DEFAULTS, LLAMA, small) == MissingEngine(
        "llama-cpp", "llama-cpp cannot load pile.pth: 50304 tokens are too few"
    )
    assert unfit(DEFAULTS, RWKV, small) is None


def test_a_quantized_files_quant_is_the_default() -> None:
    assert quants_of(chosen(replace(DEFAULTS, quants=("q4_0",)), limits=ONLY_GGUF), "llama-cpp") == ["q4_0"]


def test_items_are_unique() -> None:
    cut = items(replace(DEFAULTS, workloads=("tg3@d2",)), Request(), ALL, ANY_FORMAT, default_threads=2)
    assert {item.workload for item in cut} == {Workload("generation", 3, 2)}


def test_all_selects_each_hardware_device_once() -> None:
    gpu = replace(VULKAN, physical="0000:00:06.0")
    under_gl = replace(gpu, id="gl:0")
    engine = found(web_rwkv.BACKEND, gpu, under_gl, LLVMPIPE)
    assert devices(replace(DEFAULTS, devices=("all",)), engine) == [gpu, LLVMPIPE]
    check_devices(replace(DEFAULTS, devices=("all",)), [engine])


@pytest.mark.parametrize(
    ("wanted", "ids"),
    [("metal", ["metal:0"]), ("metal:0", ["metal:0"]), ("sycl", ["sycl:0"]), ("sycl:1", ["sycl:1"]), ("cpu", ["cpu"])],
)
def test_a_device_family_means_its_first_device(wanted: str, ids: list[str]) -> None:
    there = [Device(one, "a GPU", "gpu") for one in ("metal:0", "sycl:0", "sycl:1")]
    engine = found(llama_cpp.BACKEND, *there, CPU)
    settings = replace(DEFAULTS, devices=(wanted,))
    check_devices(settings, [engine])
    assert [device.id for device in devices(settings, engine)] == ids
