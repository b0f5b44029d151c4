"""What stands under the headings of the guide's issues, in both languages; the headings are in English (`guide`)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pytest_rwkvperf.reports.report import Language


@dataclass(frozen=True, slots=True)
class Texts:
    """The texts in one language. Braces are filled in by `str.format`."""

    no_screenshot: str
    cores: str
    no_gpu: str
    gpu_unused: str
    other_model: str
    own_figures: str
    measured_natively: str
    measured_uniformly: str
    failed: str
    columns: tuple[str, ...]
    operating_system: str
    memory: str
    model_file: str
    settings: str
    settings_are: str
    own_table: str
    system_details: str
    last_lines: str
    left_out: str


ENGLISH = Texts(
    no_screenshot="None: these figures come from the measurement record {id}, started {started}.",
    cores="{cores} logical, {physical} physical cores used",
    no_gpu="None used.",
    gpu_unused="None used; the machine has {gpus}.",
    other_model="The guide collects figures of RWKV7-G1 2.9B only. These are of {model}.",
    own_figures="With the uncertainty, as pytest-rwkvperf measured it (geometric mean over processes, 95 % interval, "
    "parity = relative L2 of the logits from an independent RWKV-7):",
    measured_natively="These are timed as the tool of the guide times them (`--rwkv-protocol=native`).",
    measured_uniformly="These are in the form of the guide's tool, timed as pytest-rwkvperf times every engine: "
    "warmed, from a cleared state, the logits on the host. `--rwkv-protocol=native` times as the tool does.",
    failed="Not measured:",
    columns=(
        "quant",
        "device",
        "workload",
        "tokens/s",
        "95 % interval",
        "processes × samples",  # noqa: RUF001 - times
        "first token",
        "inter-token p50 / p99",
        "peak RSS",
        "parity",
        "verdict",
    ),
    operating_system="Operating system",
    memory="Main memory",
    model_file="Model file",
    settings="Settings",
    settings_are="{threads} threads, chunks of {chunk} tokens{own}; load average {load} before, "
    "{steal:.1%} of the CPU stolen",
    own_table="the table with intervals",
    system_details="the system's details",
    last_lines="the last lines",
    left_out="Left out to fit into a link: {parts}.",
)

CHINESE = Texts(
    no_screenshot="无：以上数据来自测量记录 {id}，开始于 {started}。",  # noqa: RUF001 - Chinese punctuation
    cores="使用 {cores} 个逻辑核、{physical} 个物理核",
    no_gpu="未使用。",
    gpu_unused="未使用；本机装有 {gpus}。",  # noqa: RUF001 - as above
    other_model="指南只收集 RWKV7-G1 2.9B 的数据。以下数据来自 {model}。",
    own_figures="pytest-rwkvperf 的测量结果及其不确定度（各进程的几何平均、95 % 置信区间；"  # noqa: RUF001 - as above
    "parity 为 logits 与独立实现的 RWKV-7 的相对 L2 距离）：",  # noqa: RUF001 - as above
    measured_natively="以上数据按指南所用工具自身的方式计时（`--rwkv-protocol=native`）。",  # noqa: RUF001 - as above
    measured_uniformly="以上数据采用指南所用工具的格式，但按 pytest-rwkvperf 对所有引擎统一的方式计时："  # noqa: RUF001 - as above
    "预热、从清零的状态开始、logits 取回主机。`--rwkv-protocol=native` 按工具自身的方式计时。",
    failed="未能测量：",  # noqa: RUF001 - as above
    columns=(
        "量化",
        "设备",
        "负载",
        "tokens/s",
        "95 % 区间",
        "进程 × 样本",  # noqa: RUF001 - times
        "首 token",
        "token 间隔 p50 / p99",
        "内存峰值",
        "parity",
        "结论",
    ),
    operating_system="操作系统",
    memory="内存",
    model_file="模型文件",
    settings="设置",
    settings_are="{threads} 线程，每块 {chunk} 个 token{own}；"  # noqa: RUF001 - as above
    "测量前平均负载 {load}，CPU 被占用 {steal:.1%}",  # noqa: RUF001 - as above
    own_table="带置信区间的表格",
    system_details="系统详情",
    last_lines="末尾若干行",
    left_out="为缩短链接而省略：{parts}。",  # noqa: RUF001 - as above
)

TEXTS: Mapping[Language, Texts] = {"en": ENGLISH, "zh": CHINESE}
