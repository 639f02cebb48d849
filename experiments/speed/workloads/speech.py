"""wav2vec 2.0, and APC with a GRU and an LSTM."""

from __future__ import annotations

import dataclasses

import numpy as np

from experiments.speed.workloads.base import SEED, STREAM, Train

RATE = 16_000
NO_DROPOUT = dict.fromkeys(
    (
        "hidden_dropout",
        "activation_dropout",
        "attention_dropout",
        "feat_proj_dropout",
        "feat_quantizer_dropout",
        "final_dropout",
        "layerdrop",
    ),
    0.0,
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Wav2Vec(Train):
    """Wav2Vec2ForPreTraining: spans, Gumbel quantiser, contrast, diversity; no penalty on latents."""

    def batch(self, sizes):
        shape = (sizes["batch"], sizes["samples"])
        audio = np.random.default_rng(SEED).standard_normal(shape, np.float32)
        return {"audio": audio, "audio_lengths": np.full(shape[0], shape[1], np.int32)}

    def units(self, sizes):
        return sizes["batch"] * sizes["samples"] / RATE

    def model(self, sizes):
        import transformers

        config = transformers.Wav2Vec2Config(
            **NO_DROPOUT,
            **sizes["model"],
            mask_feature_prob=0.0,
            contrastive_logits_temperature=0.1,
            diversity_loss_weight=0.1,
        )
        return transformers.Wav2Vec2ForPreTraining(config)

    def inputs(self, batch, draws, sizes):
        masked = np.asarray(draws["masked"])
        first = (
            masked.shape[1] * np.arange(len(masked))[:, None, None]
        )  # theirs count over the batch
        return {
            "input_values": batch["audio"],
            "mask_time_indices": masked,
            "sampled_negative_indices": np.asarray(draws["others"]) + first,
            "noise": np.asarray(draws["noise"]),
        }

    def loss(self, model, inputs):
        given = {k: v for k, v in inputs.items() if k != "noise"}
        return model(**given).loss / inputs["mask_time_indices"].sum()

    def first_loss(self, model, inputs):
        from unittest import mock

        import torch

        def choose(logits, tau, hard):
            noisy = (logits + inputs["noise"].reshape(logits.shape)) / tau
            soft = noisy.softmax(-1)
            chosen = torch.nn.functional.one_hot(soft.argmax(-1), logits.shape[-1])
            return chosen - soft.detach() + soft

        with mock.patch.object(torch.nn.functional, "gumbel_softmax", choose):
            return self.loss(model, inputs)

    def objective(self, sizes):
        from taichu_jax.objectives.speech.wav2vec2 import Wav2Vec2

        return Wav2Vec2(source=STREAM, penalty=0.0, gumbel=2.0, negatives=sizes["negatives"])

    def draws(self, key, batch, sizes, modules):
        import jax
        import jax.numpy as jnp

        from taichu_jax.ops.negatives import sample_others
        from taichu_jax.ops.random import fold_name
        from taichu_jax.ops.spans import span_mask

        rows, samples = batch["audio"].shape
        count, quantiser = modules["speech"].token_count(samples), modules["quantiser"]
        lengths = jnp.full(rows, count, jnp.int32)
        masked = span_mask(fold_name(key, "spans"), lengths, count)
        others, _ = sample_others(fold_name(key, "negatives"), masked, sizes["negatives"])
        shape = (rows, count, quantiser.groups, quantiser.codes)
        noise = jax.random.gumbel(fold_name(key, "gumbel"), shape)
        return {"masked": masked, "others": others, "noise": noise}


@dataclasses.dataclass(frozen=True, kw_only=True)
class APC(Train):
    """Recurrent layers with residual sums, and the distance to the frame five steps ahead.

    Attributes:
      cell: 'gru' or 'lstm'.
    """

    cell: str
    draws_in_step: bool = False

    def batch(self, sizes):
        shape = (sizes["batch"], sizes["frames"], sizes["bands"])
        mel = np.random.default_rng(SEED).standard_normal(shape, np.float32)
        return {"mel": mel, "mel_lengths": np.full(shape[0], shape[1], np.int32)}

    def units(self, sizes):
        return sizes["batch"] * sizes["frames"]

    def model(self, sizes):
        import torch

        kind = {"gru": torch.nn.GRU, "lstm": torch.nn.LSTM}[self.cell]

        class Predictor(torch.nn.Module):
            def __init__(self):
                super().__init__()
                widths = [sizes["bands"]] + [sizes["width"]] * (sizes["depth"] - 1)
                self.rnn_layers = torch.nn.ModuleList(
                    kind(width, sizes["width"], batch_first=True) for width in widths
                )
                self.postnet = torch.nn.Linear(sizes["width"], sizes["bands"])

            def forward(self, x):
                for i, layer in enumerate(self.rnn_layers):
                    y, _ = layer(x)
                    x = y if i == 0 else x + y
                return self.postnet(x)

        return Predictor()

    def save(self, model, folder):
        from safetensors.torch import save_file

        folder.mkdir(parents=True, exist_ok=True)
        save_file(model.state_dict(), folder / "model.safetensors", metadata={"format": "pt"})

    def inputs(self, batch, draws, sizes):
        return {"mel": batch["mel"]}

    def loss(self, model, inputs):
        mel, shift = inputs["mel"], 5
        return (model(mel)[:, :-shift] - mel[:, shift:]).abs().mean()

    def read(self, sizes, folder):
        import jax

        from taichu_jax.interop.architectures.s3prl import S3prlAPC
        from taichu_jax.interop.rules import to_ours
        from taichu_jax.interop.settings import Settings
        from taichu_jax.interop.tensors import read_tensors
        from taichu_jax.models.layers import Linear
        from taichu_jax.models.recurrent import RecurrentEncoder
        from taichu_jax.training.state import init_params

        layers = {"width": sizes["width"], "depth": sizes["depth"], "cell": self.cell}
        modules = {
            "speech": RecurrentEncoder(**layers, two_biases=True),
            "apc_head": Linear(sizes["bands"]),
        }
        objectives, streams = {"apc": self.objective(sizes)}, {STREAM: self.batch(sizes)}
        shapes, *_ = jax.eval_shape(lambda x: init_params(modules, objectives, x, SEED), streams)
        table = S3prlAPC().table(Settings({"num_layers": sizes["depth"]}, self.name))
        return modules, to_ours(table, read_tensors(folder), shapes, where=str(folder))

    def objective(self, sizes):
        from taichu_jax.objectives.speech.apc import AutoregressivePredictiveCoding

        return AutoregressivePredictiveCoding(source=STREAM, shift=5)


_FRAMES = {
    "tiny": {"batch": 2, "frames": 12, "bands": 6, "width": 8, "depth": 2},
    "base": {"batch": 32, "frames": 400, "bands": 80, "width": 512, "depth": 3},
    "gpu": {"batch": 128},
}

SPEECH = (
    Wav2Vec(
        name="wav2vec2",
        label="wav2vec 2.0 base",
        unit="seconds of sound",
        goal=1.0,
        tiny={
            "batch": 2,
            "samples": 500,
            "negatives": 5,
            "model": {
                "hidden_size": 16,
                "num_hidden_layers": 1,
                "num_attention_heads": 2,
                "intermediate_size": 24,
                "conv_dim": (12, 12, 12),
                "conv_kernel": (10, 3, 2),
                "conv_stride": (5, 2, 2),
                "num_conv_pos_embeddings": 4,
                "num_conv_pos_embedding_groups": 2,
                "num_codevectors_per_group": 6,
                "codevector_dim": 8,
                "proj_codevector_dim": 8,
            },
        },
        base={"batch": 2, "samples": 4 * RATE, "negatives": 100, "model": {}},
        gpu={"batch": 8, "samples": 15 * RATE},
    ),
    APC(name="apc_gru", label="APC, 3 x GRU 512", unit="frames", cell="gru", goal=1.0, **_FRAMES),
    APC(
        name="apc_lstm", label="APC, 3 x LSTM 512", unit="frames", cell="lstm", goal=1.2, **_FRAMES
    ),
)
