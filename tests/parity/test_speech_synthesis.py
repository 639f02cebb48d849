"""FastSpeech 2's variance predictor and length regulator, as transformers has them."""

import jax
import numpy as np
import pytest

from taichu_jax.models.variance import VariancePredictor
from taichu_jax.ops.durations import lengthened
from tests.parity.theirs import torch

pytest.importorskip("transformers", reason="see requirements-test.txt")


def test_variance_predictor():
    from transformers import FastSpeech2ConformerConfig
    from transformers.models.fastspeech2_conformer import modeling_fastspeech2_conformer as theirs

    config = FastSpeech2ConformerConfig(hidden_size=6)
    torch.manual_seed(0)
    model = theirs.FastSpeech2ConformerVariancePredictor(config, 2, 8, 3, 0.5).eval()
    params = {"value": _dense(model.linear.weight, model.linear.bias)}
    for i, layer in enumerate(model.conv_layers):
        taps = layer.conv.weight.permute(2, 1, 0).reshape(-1, 8).T  # [8, taps * inputs]
        params[f"convolution_{i}"] = _dense(taps, layer.conv.bias)
        layer.layer_norm.eps = 1e-6  # this project's; theirs is 1e-5
        scale, bias = layer.layer_norm.weight, layer.layer_norm.bias
        params[f"norm_{i}"] = {"scale": _array(scale), "bias": _array(bias)}
    x = np.random.default_rng(0).normal(size=(2, 7, 6)).astype(np.float32)
    expected = model(torch.tensor(x))[..., 0]
    module = VariancePredictor(width=8)
    found = jax.jit(module.apply)({"params": params}, x, np.ones((2, 7), bool))
    np.testing.assert_allclose(found, _array(expected), atol=2e-5)


def test_length_regulator():
    from transformers.models.fastspeech2_conformer.modeling_fastspeech2_conformer import (
        length_regulator,
    )

    rng = np.random.default_rng(1)
    states = rng.normal(size=(3, 5, 4)).astype(np.float32)
    durations = rng.integers(0, 4, (3, 5))
    expected = length_regulator(torch.tensor(states), torch.tensor(durations))
    found = jax.jit(lengthened, static_argnums=2)(states, durations, expected.shape[1])
    np.testing.assert_array_equal(found, expected.numpy())


def _array(x):
    return x.detach().numpy()


def _dense(weight, bias):
    return {"kernel": _array(weight).T, "bias": _array(bias)}
