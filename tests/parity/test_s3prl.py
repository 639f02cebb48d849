"""Methods on log-mel frames against s3prl 0.4.18's models and losses, with the same weights and draws.

What of s3prl is put differently here: every utterance is heard alone, without padding, because its mean
over frames counts padding in APC and its convolutions carry padding into what is real in NPC; NPC's batch
norms are in eval mode, or replaced by layer norms over channels (models/local_context.py says why), of
which the first is read and written by launch/convert.py's code, too; transformers have
pre_layer_norm=True and an epsilon of 1e-6. It has no LSTM in APC: torch.nn.LSTM stands for its GRU there.
"""

from __future__ import annotations

import functools
import types

import jax
import numpy as np
import pytest

from taichu_jax.config import build
from taichu_jax.interop import s3prl as checkpoints
from taichu_jax.interop.convert import read_model
from taichu_jax.interop.rules import to_theirs
from taichu_jax.interop.tensors import write_tensors
from taichu_jax.models.codes import GroupQuantiser
from taichu_jax.models.heads import Projection
from taichu_jax.models.layers import Dense
from taichu_jax.models.local_context import LocalContextEncoder
from taichu_jax.models.recurrent import RecurrentEncoder, VQRecurrentEncoder
from taichu_jax.models.speech import SpeechEncoder, alternating_sinusoid
from taichu_jax.objectives.speech.apc import AutoregressivePredictiveCoding
from taichu_jax.objectives.speech.mockingjay import Mockingjay
from taichu_jax.objectives.speech.npc import NonAutoregressivePredictiveCoding
from taichu_jax.objectives.speech.tera import Tera
from taichu_jax.objectives.speech.vq_apc import VectorQuantisedAPC
from taichu_jax.ops.alterations import alter_time
from taichu_jax.ops.frames import stack_frames
from taichu_jax.ops.random import fold_name
from tests.parity import names
from tests.parity.ours import assert_close, assert_gradients_close, runner, shapes_of
from tests.parity.theirs import (
    EPSILON,
    give_gumbel,
    gradients,
    outputs_of,
    randomised,
    s3prl,
    torch,
    weights,
)

apc, apc_loss, npc, npc_loss, transformer, positions, reconstruction = s3prl(
    "upstream.apc.apc",
    "pretrain.apc.pretrain_expert",
    "upstream.npc.npc",
    "pretrain.npc.pretrain_expert",
    "upstream.mockingjay.model",
    "upstream.mockingjay.builder",
    "pretrain.mockingjay.pretrain_expert",
)

RNG = jax.random.key(5)
FRAMES, BANDS, WIDTH, SHIFT, CODES = 17, 5, 8, 3, 6
LENGTHS = np.array([17, 12, 7], np.int32)
MEL = np.random.default_rng(0).normal(size=(3, FRAMES, BANDS)).astype(np.float32)
BATCH = {"mel": MEL, "mel_lengths": LENGTHS}


def loss_of(expert, model, mel, **fields):
    """The loss of one of s3prl's pre-training experts for a batch of one utterance, [1, F, M]."""
    self = types.SimpleNamespace(model=model, device="cpu", **fields)
    forward = expert.UpstreamPretrainExpert.forward
    return forward(self, (mel, [mel.shape[1]]), global_step=1)[0]


def ready(model, table, modules, objective, batch=BATCH, unused=(), absent=(), buffers=None):
    """Our results with the model's weights; `absent` parameters of ours, which it has not, are zero."""
    tensors = weights(model) | {path: np.zeros(WIDTH, np.float32) for path in absent}
    tensors |= buffers or {}
    table |= {path: names.source(path) for path in absent}
    names.assert_complete(table, shapes_of(modules, objective, batch), tensors, unused)
    return runner(modules, objective, RNG)(names.carried(table, tensors), batch)


@pytest.mark.parametrize("method", ["gru", "lstm", "quantised"])
def test_apc(method, monkeypatch):
    quantised = method == "quantised"
    cell = "gru" if quantised else method
    layers = {"width": WIDTH, "depth": 3, "cell": cell}
    codes = {"codebook_size": [CODES], "code_dim": [WIDTH], "gumbel_temperature": 0.5}
    torch.manual_seed(0)
    model = apc.APC(BANDS, WIDTH, 3, dropout=0.0, residual=True, vq=codes if quantised else None)
    if cell == "lstm":
        model.rnn_layers = torch.nn.ModuleList(
            torch.nn.LSTM(size, WIDTH, batch_first=True) for size in (BANDS, WIDTH, WIDTH)
        )
    randomised(model)
    layer, head = ("recurrences", "vq_apc_head") if quantised else ("layer", "apc_head")
    table = names.dense(head, "postnet")
    for i in range(3):
        table |= names.recurrence(f"speech/{layer}_{i}", f"rnn_layers.{i}", cell)
    if quantised:
        table |= names.group_quantiser("speech/quantiser", "vq_layers", 1)
        objective = VectorQuantisedAPC(source="stream", shift=SHIFT)
        modules = {"speech": VQRecurrentEncoder(**layers, codes=CODES), head: Dense(BANDS)}
        noise = jax.random.gumbel(fold_name(RNG, "gumbel"), (3, FRAMES, 1, CODES))
        give_gumbel(monkeypatch, [noise[b, : n - SHIFT] for b, n in enumerate(LENGTHS)])
    else:
        objective = AutoregressivePredictiveCoding(source="stream", shift=SHIFT)
        modules = {"speech": RecurrentEncoder(**layers), head: Dense(BANDS)}
    ours = ready(model, table, modules, objective)

    method = "quantise" if quantised else "call"
    (encoded,) = ours.calls[f"trained speech {method}"]
    encoded = encoded.encoded if quantised else encoded
    # The residual sum is made in place, in what dropout has returned: so these are the layers' states.
    recorded = outputs_of([model.rnn_dropout])
    predicted = outputs_of([model.postnet])
    total, count = torch.zeros(()), (LENGTHS - SHIFT).sum()
    for b, n in enumerate(LENGTHS):
        recorded.clear()
        mel = torch.tensor(MEL[b : b + 1, :n])
        loss = loss_of(apc_loss, model, mel, n_future=SHIFT, loss=torch.nn.L1Loss())
        total = total + loss * (n - SHIFT)
        assert len(recorded) == len(encoded.layers) - 1 == 3
        for i, state in enumerate(recorded):
            assert_close(encoded.layers[i + 1][b, : n - SHIFT], state[0].detach(), what=f"{i}")
        result = ours.calls[f"trained {head} call"][0][b, : n - SHIFT]
        assert_close(result, predicted[-1][0].detach(), what="prediction")
    loss = total / count
    loss.backward()
    assert_close(ours.value, loss.item())
    assert_gradients_close(ours.gradients, names.carried(table, gradients(model), "gradient"))


stacks = jax.jit(stack_frames, static_argnums=2)


class ChannelNorm(torch.nn.LayerNorm):
    """Layer norm over the channels of [B, C, T], in place of batch norm."""

    def __init__(self, channels):
        super().__init__(channels, eps=EPSILON)

    def forward(self, x):
        return super().forward(x.transpose(1, 2)).transpose(1, 2)


@pytest.mark.parametrize("norm", ["layer", "batch", "none"])
def test_npc(norm, monkeypatch, tmp_path):
    """With the settings that the authors use; norm='none' with all the others."""
    blocks, hidden, groups, other = 2, 3, 2, norm == "none"
    paras = {
        "hidden_size": WIDTH,
        "n_blocks": blocks,
        "dropout": 0.0,
        "residual": not other,
        "kernel_size": 9,
        "mask_size": hidden,
        "vq": {
            "codebook_size": [CODES] * groups,
            "code_dim": [WIDTH // groups] * groups,
            "gumbel_temperature": 1.0,
        },
        "batch_norm": not other,
        "activate": "tanh" if other else "relu",
        "disable_cross_layer": other,
    }
    torch.manual_seed(1)
    model = npc.NPC(BANDS, **paras)
    if norm == "layer":
        for block in model.blocks:
            block.bn1, block.bn2 = ChannelNorm(WIDTH), ChannelNorm(WIDTH)
    randomised(model)
    if norm == "batch":
        model.eval()
        with torch.no_grad():
            for name, x in model.named_buffers():
                if name.endswith("running_mean"):
                    x.normal_(0.0, 0.5)
                elif name.endswith("running_var"):
                    x.uniform_(0.005, 3.0)  # the least makes epsilon count
                elif name.endswith("num_batches_tracked"):
                    x.fill_(7)
    kinds = {"layer": names.norm, "batch": names.batch_norm, "none": lambda ours, theirs: {}}
    norm_of = kinds[norm]
    table = names.group_quantiser("quantiser", "vq_layers", groups)
    table |= names.dense("npc_head", "postnet")
    for i in range(blocks):
        block = f"speech/block_{i + 1}"
        table |= names.window_convolution(f"{block}/convolution", f"blocks.{i}.conv")
        table |= norm_of(f"{block}/convolution_norm", f"blocks.{i}.bn1")
        table |= names.window_convolution(f"{block}/linear", f"blocks.{i}.linear")
        table |= norm_of(f"{block}/linear_norm", f"blocks.{i}.bn2")
        masked = f"speech/masked_{i + 1}", f"masked_convs.{i}", hidden + 2 * (i + 1)
        if i == blocks - 1 or not other:
            table |= names.masked_convolution(*masked)
    modules = {
        "speech": LocalContextEncoder(
            width=WIDTH,
            blocks=blocks,
            kernel=9,
            mask=hidden,
            norm=norm,
            activation=paras["activate"],
            residual=paras["residual"],
            cross_layer=not other,
        ),
        "quantiser": GroupQuantiser(groups=groups, codes=CODES),
        "npc_head": Dense(BANDS),
    }
    statistics = {
        name: x.numpy() for name, x in model.named_buffers() if ".running_" in name
    }  # none of layer norms
    ours = ready(
        model,
        table,
        modules,
        NonAutoregressivePredictiveCoding(source="stream"),
        buffers=statistics,
    )

    noise = jax.random.gumbel(fold_name(RNG, "gumbel"), (3, FRAMES, groups, CODES))
    give_gumbel(
        monkeypatch, [noise[b, :n, g] for b, n in enumerate(LENGTHS) for g in range(groups)]
    )
    (encoded,) = ours.calls["trained speech call"]
    recorded, whole = outputs_of(model.blocks), outputs_of([model])
    total = torch.zeros(())
    for b, n in enumerate(LENGTHS):
        recorded.clear()
        mel = torch.tensor(MEL[b : b + 1, :n])
        loss = loss_of(npc_loss, model, mel, loss=torch.nn.L1Loss(reduction="none"))
        total = total + loss * n
        assert len(recorded) == len(encoded.layers) - 1 == blocks
        for layer, state in zip(encoded.layers[1:], recorded, strict=True):
            assert_close(layer[b, :n], state[0].detach().T, what="block")
        prediction = ours.calls["trained npc_head call"][0][b, :n]
        assert_close(prediction, whole[-1][0].detach(), what="prediction")
    loss = total / LENGTHS.sum()
    loss.backward()
    assert_close(ours.value, loss.item())
    still = {name: np.zeros_like(x) for name, x in statistics.items()}
    theirs = names.carried(table, gradients(model) | still, "gradient")
    assert_gradients_close(ours.gradients, theirs)
    if norm != "layer":
        tensors = weights(model) | statistics
        npc_there_and_back(model, paras, modules, names.carried(table, tensors), encoded, tmp_path)


def npc_there_and_back(model, paras, modules, params, encoded, tmp_path):
    """s3prl's checkpoint, our networks and parameters, s3prl's model again: exactly the same."""
    saved = {"model": model.state_dict(), "config": {"data": {}, "model": {"paras": paras}}}
    torch.save(saved, tmp_path / "states.ckpt")
    checkpoints.to_folder(tmp_path / "states.ckpt", tmp_path / "folder")
    read = read_model(tmp_path / "folder")
    assert read.anew == []
    read_modules = build(read.networks)
    assert read_modules["speech"] == modules["speech"]
    assert read_modules["quantiser"] == modules["quantiser"]
    params |= {
        "npc_head": {"linear": params["npc_head"]}
    }  # a Dense above, a network of its own here
    jax.tree.map(np.testing.assert_array_equal, read.params, params)

    tensors, left = to_theirs(read.table, read.params, where="test")
    assert left == []
    write_tensors(tmp_path / "folder", tensors)
    checkpoints.to_checkpoint(tmp_path / "folder", tmp_path / "again.ckpt")
    states = torch.load(tmp_path / "again.ckpt", weights_only=True)
    assert states["config"]["model"]["paras"] == paras
    again = npc.NPC(BANDS, **states["config"]["model"]["paras"])
    again.load_state_dict(states["model"])
    given, found = model.state_dict(), again.state_dict()
    for mask in [name for name in given if name.endswith("conv_mask")]:
        name = mask.replace("conv_mask", "conv.weight")
        given[name] = torch.where(given[mask] > 0, given[name], 0.0)
    assert all(torch.equal(found[name], tensor) for name, tensor in given.items())
    counted = [name for name in found if name.endswith("num_batches_tracked")]
    assert len(counted) == (4 if paras["batch_norm"] else 0)
    uncounted = {name: x for name, x in states["model"].items() if name not in counted}
    again.load_state_dict(uncounted)  # as for a run that was never a checkpoint

    @jax.jit
    def used(states):
        """In use, without noise."""
        codes = modules["quantiser"].apply({"params": params["quantiser"]}, states)
        return read_modules["npc_head"].apply({"params": params["npc_head"]}, codes.vectors)

    ours = used(encoded.tokens)
    for b, n in enumerate(LENGTHS):
        mel = torch.tensor(MEL[b : b + 1, :n])
        with torch.no_grad():
            results, repeated = model(mel, testing=True), again.eval()(mel, testing=True)
        assert all(torch.equal(x, y) for x, y in zip(results, repeated, strict=True))
        assert_close(ours[b, :n], results[0][0], what="reconstruction")
        assert_close(encoded.tokens[b, :n], results[1][0], what="masked states")


def test_positions():
    """The model below gets them as an argument."""
    theirs = positions.position_encoding(300, WIDTH)
    np.testing.assert_allclose(alternating_sinusoid(300, WIDTH), theirs, atol=1e-4)


@pytest.mark.parametrize("method", ["mockingjay", "tera", "audio_albert"])
def test_reconstruction(method):
    """Encoder and head with front_end='linear' and norm='after'; padding is masked on both sides."""
    depth, stride, shared = 2, 2, method == "audio_albert"
    config = transformer.TransformerConfig(
        {
            "hidden_size": WIDTH,
            "num_hidden_layers": depth,
            "num_attention_heads": 2,
            "hidden_act": "gelu",
            "intermediate_size": 2 * WIDTH,
            "hidden_dropout_prob": 0.0,
            "attention_probs_dropout_prob": 0.0,
            "initializer_range": 0.02,
            "layer_norm_eps": EPSILON,
            "share_layer": shared,
            "pre_layer_norm": True,
        }
    )
    torch.manual_seed(2)
    cells = stride * BANDS
    model = randomised(reconstruction.TransformerForMaskedAcousticModel(config, cells, cells))
    settings = {"rate": 0.5, "span": 2}
    if method == "tera":
        objective, head = Tera(source="stream", noise_rate=0.5, **settings), "tera_head"
        altered, where, _ = jax.jit(objective.alter)(MEL, LENGTHS, RNG)
    else:
        objective, head = Mockingjay(source="stream", **settings), "mockingjay_head"
        alter = jax.jit(functools.partial(alter_time, **settings))
        altered, where = alter(fold_name(RNG, "time"), MEL, LENGTHS)
    table = names.s3prl_transformer(1 if shared else depth)
    table |= names.norm("speech/transformer/norm", f"Transformer.encoder.LayerNorm.{depth}")
    table |= names.dense(f"{head}/up", "SpecHead.dense")
    table |= names.norm(f"{head}/norm", "SpecHead.LayerNorm")
    table |= names.dense(f"{head}/out", "SpecHead.output")
    modules = {
        "speech": SpeechEncoder(
            width=WIDTH,
            depth=depth,
            heads=2,
            stride=stride,
            bands=BANDS,
            frames=FRAMES,
            expansion=2.0,
            shared_layers=shared,
            front_end="linear",
        ),
        head: Projection(cells, hidden=WIDTH, norm="after"),
    }
    # Norms of the layers below, whose results pre-training does not use; and no token hides a frame.
    unused = [
        f"Transformer.encoder.LayerNorm.{i}.{name}"
        for i in range(depth)
        for name in ("weight", "bias")
    ]
    ours = ready(model, table, modules, objective, unused=unused, absent=["speech/mask_token"])

    def stacked(x):
        return torch.tensor(np.array(stacks(x, LENGTHS, stride)))

    real = np.arange(-(-FRAMES // stride)) < -(-LENGTHS[:, None] // stride)
    inputs = model.Transformer.input_representations
    recorded = outputs_of([inputs, *model.Transformer.encoder.layer])
    last = outputs_of([model.Transformer.encoder.LayerNorm[-1]])
    places = positions.position_encoding(real.shape[1], WIDTH).expand(3, -1, -1)
    loss, predicted = model(
        stacked(altered), places, stacked(where).bool(), torch.tensor(real).float(), stacked(MEL)
    )
    loss.backward()
    (encoded,) = ours.calls["trained speech call"]
    assert len(recorded) == len(encoded.layers) == depth + 1
    for i, (layer, state) in enumerate(zip(encoded.layers, recorded, strict=True)):
        assert_close(layer, state.detach(), real, what=f"layer {i}")
    assert_close(encoded.tokens, last[0].detach(), real, what="tokens")
    prediction = ours.calls[f"trained {head} call"][0]
    assert_close(prediction, predicted.detach(), real, what="prediction")
    assert_close(ours.value, loss.item())
    theirs = gradients(model) | {"speech/mask_token": np.zeros(WIDTH, np.float32)}
    assert_gradients_close(ours.gradients, names.carried(table, theirs, "gradient"))
