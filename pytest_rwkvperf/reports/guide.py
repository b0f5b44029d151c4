"""The community's RWKV inference performance guide: its repository, and the three issue templates that it has there.

Source: the issue templates of github.com/RWKV-Vibe/RWKV-Inference-Performance-Test in August 2025. They are in English
alone, for readers of both languages.
"""

from __future__ import annotations

from dataclasses import dataclass

REPOSITORY = "RWKV-Vibe/RWKV-Inference-Performance-Test"

CPU = "💾 CPU model"
GPU = "🎮 GPU model"
PERFORMANCE = "📊 Performance data"
SYSTEM = "🛠️ System information [optional]"
SCREENSHOT = "🖥 Screenshot [optional]"

ACCEPTED = (32, 2560)
"""Layers and width of the 2.9B model, the only one whose figures the guide collects."""


@dataclass(frozen=True, slots=True)
class Template:
    """One template: the tool in title and label, and the file, empty for an engine that the guide does not know."""

    tool: str
    file: str = ""

    @property
    def title(self) -> str:
        """What a title begins with."""
        return f"[{self.tool} report] "

    @property
    def labels(self) -> tuple[str, str]:
        """The labels that the template gives an issue."""
        return "performance", self.tool


WEB_RWKV = Template("web-rwkv", "web-rwkv-performance-report.md")
RWKV_PIP = Template("rwkv-pip", "rwkv-pip-performance-report.md")
LLAMA_CPP = Template("llama.cpp", "llama-cpp-performance-report.md")
