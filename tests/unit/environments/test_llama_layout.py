"""Where a binding does not fit a build of llama.cpp, that is said before anything is called."""

from __future__ import annotations

import ctypes
from types import SimpleNamespace

from pytest_rwkvperf.environments.builders import llama_layout

HEADER = """
    struct llama_model_params {
        // a comment; with a semicolon
        ggml_backend_dev_t * devices;
        int32_t n_gpu_layers; /* another; one */
        const float * tensor_split, * other;
        bool flags[4];

        bool vocab_only;      // only load the vocabulary
    };
    typedef struct llama_batch {
        int32_t n_tokens;
    } llama_batch;
"""


class Params(ctypes.Structure):
    _fields_ = (("first", ctypes.c_int32), ("second", ctypes.c_double))


BINDING = SimpleNamespace(llama_model_params=Params, _strlen=ctypes.CDLL(None).strlen)
FITS = {"llama_model_params": {"first": [0, 4], "second": [8, 8], "": [0, 16]}}


def problems(**fields: list[int]) -> list[str]:
    return llama_layout.problems_of({"llama_model_params": fields}, BINDING, SimpleNamespace(strlen=None))


def test_the_fields_of_a_structure_are_read_in_order() -> None:
    expected = ["devices", "n_gpu_layers", "tensor_split", "other", "flags", "vocab_only"]
    assert llama_layout.fields_of(HEADER, "llama_model_params") == expected
    assert llama_layout.fields_of(HEADER, "llama_batch") == ["n_tokens"]
    assert llama_layout.fields_of(HEADER, "llama_context_params") == []


def test_a_binding_that_fits_has_no_problems() -> None:
    assert llama_layout.problems_of(FITS, BINDING, SimpleNamespace(strlen=None)) == []


def test_a_new_a_missing_and_a_moved_field_are_named() -> None:
    both = {"first": [0, 4], "second": [8, 8]}
    assert problems(**both, **{"third": [16, 8], "": [0, 24]}) == [
        "llama_model_params has third, which the binding does not know"
    ]
    assert problems(**{"first": [0, 4], "": [0, 4]}) == ["llama_model_params has no second"]
    assert problems(**{"first": [8, 4], "second": [0, 8], "": [0, 16]}) == [
        "llama_model_params has first, second elsewhere"
    ]
    assert problems(**both, **{"": [0, 24]}) == ["llama_model_params has its size elsewhere"]


def test_a_missing_function_is_named() -> None:
    assert llama_layout.problems_of(FITS, BINDING, SimpleNamespace()) == ["the library has no strlen"]
