"""Which of another package's tensors each of our parameters is.

A table maps the path of a parameter, 'network/module/name', to its source: the names of the tensors that
it is made of, and how. The same table carries weights over and, in the other direction of the same
question, the gradients that PyTorch found; the two differ only where one of our parameters stands for
several of theirs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

import numpy as np
from flax import traverse_util

from taichu_jax.interop.architectures import wave
from taichu_jax.interop.rules import Rule

Change = Callable[..., np.ndarray]


class Source(NamedTuple):
    """Where a parameter comes from.

    Attributes:
      names: the other package's tensors.
      weight: our parameter from their values.
      gradient: the gradient of our parameter from the gradients of theirs.
    """

    names: tuple[str, ...]
    weight: Change
    gradient: Change


Table = dict[str, Source]


def source(name: str, change: Change = lambda x: x) -> Source:
    """One tensor, moved around; its gradient is moved alike."""
    return Source((name,), change, change)


def of_rules(rules: Iterable[Rule]) -> Table:
    """Rules of launch/convert.py that make one of our parameters each."""
    return {rule.ours[0]: source(rule.theirs, lambda x, r=rule: r.take(x)[0]) for rule in rules}


def dense(ours: str, theirs: str, bias: bool = True) -> Table:
    """torch.nn.Linear [out, in]."""
    table = {f"{ours}/kernel": source(f"{theirs}.weight", np.transpose)}
    return table | ({f"{ours}/bias": source(f"{theirs}.bias")} if bias else {})


def convolution(ours: str, theirs: str, bias: bool = True) -> Table:
    """torch.nn.Conv1d [out, in / groups, size]."""
    table = {f"{ours}/kernel": source(f"{theirs}.weight", lambda w: w.transpose(2, 1, 0))}
    return table | ({f"{ours}/bias": source(f"{theirs}.bias")} if bias else {})


def norm(ours: str, theirs: str) -> Table:
    return {f"{ours}/scale": source(f"{theirs}.weight"), f"{ours}/bias": source(f"{theirs}.bias")}


def batch_norm(ours: str, theirs: str) -> Table:
    """torch.nn.BatchNorm1d in eval mode."""
    return norm(ours, theirs) | {
        f"{ours}/mean": source(f"{theirs}.running_mean"),
        f"{ours}/variance": source(f"{theirs}.running_var"),
    }


def recurrence(ours: str, theirs: str, cell: str) -> Table:
    """torch.nn.GRU or LSTM of one layer. Its two biases are one here, but for a GRU's new state."""
    ih, hh = f"{theirs}.bias_ih_l0", f"{theirs}.bias_hh_l0"
    table = {
        f"{ours}/input/kernel": source(f"{theirs}.weight_ih_l0", np.transpose),
        f"{ours}/recurrent_kernel": source(f"{theirs}.weight_hh_l0", np.transpose),
    }
    if cell == "lstm":
        return table | {f"{ours}/input/bias": Source((ih, hh), np.add, lambda a, b: a)}

    def reset_and_update(b_ih, b_hh):
        return b_ih + np.where(np.arange(len(b_hh)) < len(b_hh) // 3 * 2, b_hh, 0)

    return table | {
        f"{ours}/input/bias": Source((ih, hh), reset_and_update, lambda a, b: a),
        f"{ours}/recurrent_bias": source(hh, lambda b: b[len(b) // 3 * 2 :]),
    }


def transformers_block(ours: str, theirs: str) -> Table:
    """A pre-norm block of transformers' speech models ('stable layer norm')."""
    return of_rules(wave.block(theirs, ours))


def wave_encoder(
    theirs: str, *, depth: int, convolutions: int, norms: str, position_layers: int = 1
) -> Table:
    """`WaveEncoder`, the network `speech`, from a speech model of transformers.

    Args:
      theirs: prefix of its tensors, '' or with a dot at its end.
      norms: 'group' or 'layer'.
    """
    table: Table = {}
    for i in range(convolutions):
        layer = f"{theirs}feature_extractor.conv_layers.{i}"
        table |= convolution(f"speech/convolutions_{i}", f"{layer}.conv", bias=norms == "layer")
        if norms == "layer" or i == 0:
            table |= norm(f"speech/norms_{i}", f"{layer}.layer_norm")
    table |= norm("speech/latent_norm", f"{theirs}feature_projection.layer_norm")
    table |= dense("speech/projection", f"{theirs}feature_projection.projection")
    table["speech/mask_token"] = source(f"{theirs}masked_spec_embed")
    place = f"{theirs}encoder.pos_conv_embed"
    if position_layers == 1:
        table |= convolution("speech/place", f"{place}.conv")
    else:
        for i in range(position_layers):
            table |= convolution(f"speech/places_{i}", f"{place}.layers.{i}.conv")
    for i in range(depth):
        table |= transformers_block(f"speech/transformer/block_{i}", f"{theirs}encoder.layers.{i}")
    return table | norm("speech/transformer/norm", f"{theirs}encoder.layer_norm")


def gated_positions(theirs: str, depth: int) -> Table:
    """WavLM's relative position bias.

    Its gates are sums of four linear maps each, and the first is 1 - u of the paper's update gate u:
    sigmoid(-a) here for 1 - sigmoid(a) there.
    """

    def summed(w):
        return np.stack([-w[:4].sum(0), w[4:].sum(0)], axis=-1)

    def one_of_four(g):
        return np.stack([-g[0], g[4]], axis=-1)

    first = f"{theirs}encoder.layers.0.attention.rel_attn_embed.weight"
    table = {"speech/transformer/relative_position/relative_position_embedding": source(first)}
    for i in range(depth):
        gate = f"speech/transformer/block_{i}/attention/position_gate"
        attention = f"{theirs}encoder.layers.{i}.attention"
        table[f"{gate}/scale"] = source(f"{attention}.gru_rel_pos_const", np.ravel)
        for mine, name in (("kernel", "weight"), ("bias", "bias")):
            linear = f"{attention}.gru_rel_pos_linear.{name}"
            table[f"{gate}/gates/{mine}"] = Source((linear,), summed, one_of_four)
    return table


def product_quantiser(theirs: str, groups: int) -> Table:
    """transformers' Wav2Vec2GumbelVectorQuantizer, the network `quantiser`."""
    entries = source(f"{theirs}.codevectors", lambda x: x.reshape(groups, -1, x.shape[-1]))
    scores = dense("quantiser/scores", f"{theirs}.weight_proj")
    return scores | {"quantiser/code_embedding": entries}


def group_quantiser(ours: str, theirs: str, groups: int) -> Table:
    """s3prl's VQLayers, one for every group."""

    def stacked(*parts):
        return np.stack(parts)

    def stacked_transposed(*parts):
        return np.stack([x.T for x in parts])

    def every(name):
        return tuple(f"{theirs}.{i}.{name}" for i in range(groups))

    scores, entries = every("vq_logits.weight"), every("codebook_CxE.weight")
    return {
        f"{ours}/scores_kernel": Source(scores, stacked_transposed, stacked_transposed),
        f"{ours}/scores_bias": Source(every("vq_logits.bias"), stacked, stacked),
        f"{ours}/code_embedding": Source(entries, stacked_transposed, stacked_transposed),
    }


def masked_convolution(ours: str, theirs: str, hidden: int) -> Table:
    """s3prl's MaskConvBlock: the offsets that it multiplies with zero, `hidden` of them, are left out."""

    def seen(w):
        centre = w.shape[2] // 2
        offsets = [o for o in range(w.shape[2]) if abs(o - centre) > hidden // 2]
        return w[:, :, offsets].transpose(2, 1, 0).reshape(-1, w.shape[0])

    return {
        f"{ours}/kernel": source(f"{theirs}.conv.weight", seen),
        f"{ours}/bias": source(f"{theirs}.conv.bias"),
    }


def window_convolution(ours: str, theirs: str) -> Table:
    """torch.nn.Conv1d as one product with neighbouring frames, the first frame's channels first."""

    def flat(w):
        return w.transpose(2, 1, 0).reshape(-1, w.shape[0])

    return {
        f"{ours}/kernel": source(f"{theirs}.weight", flat),
        f"{ours}/bias": source(f"{theirs}.bias"),
    }


def s3prl_transformer(depth: int) -> Table:
    """s3prl's TransformerForMaskedAcousticModel with pre_layer_norm: networks `speech` and `head`."""
    inputs = "Transformer.input_representations"
    table = dense("speech/front", f"{inputs}.spec_transform")
    table |= norm("speech/front_norm", f"{inputs}.LayerNorm")
    for i in range(depth):
        ours, theirs = f"speech/transformer/block_{i}", f"Transformer.encoder.layer.{i}"
        table |= norm(f"{ours}/attention_norm", f"{theirs}.attention.output.LayerNorm")
        for name in ("query", "key", "value"):
            table |= dense(f"{ours}/attention/{name}", f"{theirs}.attention.self.{name}")
        table |= dense(f"{ours}/attention/out", f"{theirs}.attention.output.dense")
        table |= norm(f"{ours}/feed_forward_norm", f"{theirs}.output.LayerNorm")
        table |= dense(f"{ours}/feed_forward/up", f"{theirs}.intermediate.dense")
        table |= dense(f"{ours}/feed_forward/down", f"{theirs}.output.dense")
    return table


def carried(table: Table, tensors: Mapping[str, np.ndarray], what: str = "weight") -> dict:
    """Our nested parameters from their tensors; what='gradient' for their gradients."""
    flat = {
        path: np.asarray(getattr(found, what)(*(tensors[name] for name in found.names)), np.float32)
        for path, found in table.items()
    }
    return traverse_util.unflatten_dict(flat, sep="/")


def assert_complete(
    table: Table, shapes: Mapping, tensors: Mapping[str, np.ndarray], unused: Iterable[str] = ()
) -> None:
    """Every one of our parameters has a source of its shape, and every tensor of theirs is used.

    Args:
      shapes: our nested parameters, of which only the shapes are read.
      unused: tensors of theirs that their own forward pass does not reach.
    """
    ours = traverse_util.flatten_dict(dict(shapes), sep="/")
    assert set(table) == set(ours)
    for path, array in traverse_util.flatten_dict(carried(table, tensors), sep="/").items():
        assert array.shape == ours[path].shape, path
    used = {name for found in table.values() for name in found.names}
    assert used | set(unused) == set(tensors)
