"""Distances between two sets of logits, also where values are not finite."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_rwkvperf.core.errors import ModelError
from pytest_rwkvperf.oracle.agreement import Agreement, agreement, relative_l2

ORACLE = np.array([0.0, 1.0, 2.0, 4.0], np.float32)
NOTHING = Agreement(finite=False, relative_l2=-1.0, kl=-1.0, top_matches=None)


def test_equal_logits_agree() -> None:
    assert agreement(ORACLE, ORACLE, 1e-3) == Agreement(finite=True, relative_l2=0.0, kl=0.0, top_matches=True)


def test_figures_follow_their_definitions() -> None:
    engine = np.array([0.0, 1.0, 2.0, 3.0], np.float32)
    result = agreement(engine, ORACLE, 1e-3)
    assert result.relative_l2 == pytest.approx(1 / np.sqrt(21))
    right, wrong = np.exp(ORACLE.astype(float)), np.exp(engine.astype(float))
    right, wrong = right / right.sum(), wrong / wrong.sum()
    assert result.kl == pytest.approx(np.sum(right * np.log(right / wrong)))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_one_logit_that_is_not_finite_fails(value: float) -> None:
    engine = ORACLE.copy()
    engine[1] = value
    assert agreement(engine, ORACLE, 1e-3) == NOTHING


def test_another_number_of_logits_fails() -> None:
    assert agreement(ORACLE[:3], ORACLE, 1e-3) == NOTHING


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_oracle_that_is_not_finite_is_an_error(value: float) -> None:
    oracle = ORACLE.copy()
    oracle[0] = value
    with pytest.raises(ModelError, match="the oracle's own logits are not finite"):
        agreement(ORACLE, oracle, 1e-3)


def test_top_token_is_compared_where_the_margin_is_clear() -> None:
    engine = np.array([0.0, 1.0, 4.0, 3.9], np.float32)
    assert agreement(engine, ORACLE, 1e-3).top_matches is False


def test_top_token_is_not_compared_where_noise_could_change_it() -> None:
    root_mean_square = np.sqrt(21 / 4)
    margin = 2.0
    just_enough = margin / (8 * root_mean_square)
    assert agreement(ORACLE, ORACLE, just_enough * 1.01).top_matches is None
    assert agreement(ORACLE, ORACLE, just_enough * 0.99).top_matches is True


def test_top_token_detects_one_wrong_logit_that_the_norm_does_not() -> None:
    oracle = np.random.default_rng(1).standard_normal(65536).astype(np.float32)
    engine = oracle.copy()
    engine[0] = oracle.max() + 1
    result = agreement(engine, oracle, 5e-3)
    assert result.relative_l2 < 0.03
    assert result.top_matches is False


def test_relative_l2_of_zeros_and_nan() -> None:
    zero = np.zeros(3, np.float32)
    assert relative_l2(zero, zero) == 0
    assert relative_l2(zero + 2, zero) == pytest.approx(np.sqrt(12))
    assert relative_l2(zero + np.float32(np.nan), zero) == -1
    assert relative_l2(zero, zero + np.float32(np.inf)) == -1


def test_relative_l2_does_not_overflow_in_float32() -> None:
    huge = np.full(4, 3e38, np.float32)
    assert relative_l2(-huge, huge) == pytest.approx(2)


@given(st.lists(st.floats(-100, 100, width=32), min_size=2, max_size=20), st.floats(-50, 50, width=32))
def test_kl_ignores_a_shift_and_is_never_negative(values: list[float], shift: float) -> None:
    logits = np.array(values, np.float32)
    result = agreement(logits + np.float32(shift), logits, 1e-3)
    assert 0 <= result.kl < 1e-3
