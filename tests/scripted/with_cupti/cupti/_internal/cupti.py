"""The addresses of CUPTI's functions."""

from ..cupti import _inspect_function_pointers  # noqa: TID252 - workers and tests know its folder by different names

__all__ = ["_inspect_function_pointers"]
