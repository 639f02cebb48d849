"""Speech methods on samples against the models of transformers, with the same weights and draws.

Theirs are built with do_stable_layer_norm=True (blocks are pre-norm, as ours) and an epsilon of 1e-6 in
every layer norm. A model with group norm normalises over padding too, which ours leaves out: it hears
one utterance at a time, without padding, where lengths differ.
"""

from __future__ import annotations

import functools

import jax
import numpy as np
import pytest

from taichu_jax.models.codebook import Codebook
from taichu_jax.models.layers import Dense
from taichu_jax.models.quantiser import ProductQuantiser
from taichu_jax.models.relative_position import distance_buckets
from taichu_jax.models.wave import WaveEncoder
from taichu_jax.objectives.base import Teacher
from taichu_jax.objectives.speech.ctc import CTC
from taichu_jax.objectives.speech.data2vec import Data2VecAudio
from taichu_jax.objectives.speech.hubert import HuBERT
from taichu_jax.objectives.speech.wav2vec2 import Wav2Vec2
from taichu_jax.objectives.speech.wavlm import WavLM
from taichu_jax.ops.negatives import sample_others
from taichu_jax.ops.random import fold_name
from taichu_jax.ops.spans import span_mask
from taichu_jax.ops.vocabulary import CLS, PAD, SEP
from tests.parity import names
from tests.parity.ours import assert_close, assert_gradients_close, runner, shapes_of
from tests.parity.theirs import (
    EPSILON,
    give_gumbel,
    gradients,
    outputs_of,
    randomised,
    torch,
    weights,
)

transformers = pytest.importorskip("transformers", reason="see requirements-test.txt")
functional = torch.nn.functional

DEPTH, WIDTH, GROUPS, CODES = 2, 16, 2, 6
CONVOLUTIONS = {"kernels": (10, 3, 2), "strides": (5, 2, 2)}  # a token every 20 samples
SPANS = {"rate": 0.5, "span": 2}
RNG = jax.random.key(5)
LENGTHS = np.array([233, 180, 97], np.int32)
FULL = np.array([233, 233, 233], np.int32)
TOKENS = 11
AUDIO = np.random.default_rng(0).normal(size=(3, 233)).astype(np.float32)

THEIRS = {
    "hidden_size": WIDTH,
    "num_hidden_layers": DEPTH,
    "num_attention_heads": 4,
    "intermediate_size": 2 * WIDTH,
    "conv_dim": (12, 12, 12),
    "conv_kernel": CONVOLUTIONS["kernels"],
    "conv_stride": CONVOLUTIONS["strides"],
    "do_stable_layer_norm": True,
    "layer_norm_eps": EPSILON,
    "num_conv_pos_embeddings": 4,
    "num_conv_pos_embedding_groups": 2,
    "mask_feature_prob": 0.0,
    "attn_implementation": "eager",
} | dict.fromkeys(
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


def encoder(**fields):
    fields = {"norm": "layer", "positions": 4, "groups": 2, **fields}
    return WaveEncoder(
        width=WIDTH,
        depth=DEPTH,
        heads=4,
        channels=12,
        expansion=2.0,
        gradient_scale=1.0,
        **CONVOLUTIONS,
        **fields,
    )


def by_layers() -> dict:
    """The settings of theirs for norm='layer'."""
    return THEIRS | {"feat_extract_norm": "layer", "conv_bias": True}


def token_counts(lengths):
    return np.array([encoder().token_count(int(n)) for n in lengths])


@functools.partial(jax.jit, static_argnames="at_least")
def spans(counts, at_least):
    return span_mask(fold_name(RNG, "spans"), counts, TOKENS, **SPANS, at_least=at_least)


def masks(lengths, at_least=2):
    """bool [B, TOKENS]: (real tokens, the spans that our objectives hide with RNG, rate and span)."""
    counts = token_counts(lengths)
    return np.arange(TOKENS) < counts[:, None], np.array(spans(counts, at_least))


@functools.partial(jax.jit, static_argnames="count")
def negatives(masked, count):
    return sample_others(fold_name(RNG, "negatives"), masked, count)[0]


def heard(lengths):
    """Their arguments: zeros behind the end, and the attention mask."""
    mask = np.arange(AUDIO.shape[1]) < lengths[:, None]
    return {
        "input_values": torch.tensor(np.where(mask, AUDIO, 0)),
        "attention_mask": torch.tensor(mask.astype(np.int64)),
    }


def assert_layers_close(result, recorded, last, real, call="trained speech contextualise"):
    """Every hidden state: before and after each block, and the normalised last one."""
    (encoded,) = result.calls[call]
    assert len(encoded.layers) == len(recorded) == DEPTH + 1
    for i, (ours, theirs) in enumerate(zip(encoded.layers, recorded, strict=True)):
        assert_close(ours, theirs.detach(), real, what=f"layer {i}")
    assert_close(encoded.tokens, last.detach(), real, what="tokens")


def states(model) -> list:
    """Hidden states before and behind every block of the next calls."""
    return outputs_of([model.encoder.dropout, *model.encoder.layers])


# wav2vec 2.0


class Pretraining:
    """Wav2Vec2ForPreTraining and ours with its weights."""

    negatives = 5

    def __init__(self, norm: str):
        torch.manual_seed(0)
        config = transformers.Wav2Vec2Config(
            **THEIRS,
            feat_extract_norm=norm,
            conv_bias=norm == "layer",
            codevector_dim=8,
            proj_codevector_dim=10,
            num_codevectors_per_group=CODES,
            num_codevector_groups=GROUPS,
            contrastive_logits_temperature=0.1,
            diversity_loss_weight=0.1,
        )
        self.model = randomised(transformers.Wav2Vec2ForPreTraining(config))
        self.model.set_gumbel_temperature(1.5)
        self.objective = Wav2Vec2(source="stream", **SPANS, negatives=self.negatives, gumbel=1.5)
        self.table = names.wave_encoder("wav2vec2.", depth=DEPTH, convolutions=3, norms=norm)
        self.table |= names.product_quantiser("quantizer", GROUPS)
        self.table |= names.dense("wav2vec2_head", "project_hid")
        self.table |= names.dense("wav2vec2_target_head", "project_q")
        modules = {
            "speech": encoder(norm=norm),
            "quantiser": ProductQuantiser(groups=GROUPS, codes=CODES, dim=8),
            "wav2vec2_head": Dense(10),
            "wav2vec2_target_head": Dense(10),
        }
        tensors = weights(self.model)
        batch = {"audio": AUDIO, "audio_lengths": LENGTHS}
        names.assert_complete(self.table, shapes_of(modules, self.objective, batch), tensors)
        self.params = names.carried(self.table, tensors)
        self.run = runner(modules, self.objective, RNG)

    def ours(self, lengths):
        return self.run(self.params, {"audio": AUDIO, "audio_lengths": lengths})


@pytest.mark.parametrize("norm", ["layer", "group"])
def test_wav2vec2(norm, monkeypatch):
    """Losses, hidden states and all gradients; contrastive, diversity and the penalty on latents."""
    pair = Pretraining(norm)
    model, lengths = pair.model, LENGTHS if norm == "layer" else FULL
    ours = pair.ours(lengths)
    real, masked = masks(lengths)
    others = np.asarray(negatives(masked, pair.negatives)) + TOKENS * np.arange(3)[:, None, None]
    noise = jax.random.gumbel(fold_name(RNG, "gumbel"), (3, TOKENS, GROUPS, CODES))
    give_gumbel(monkeypatch, [noise])
    recorded, latents = states(model.wav2vec2), outputs_of([model.wav2vec2.feature_extractor])
    last = outputs_of([model.wav2vec2.encoder.layer_norm])
    out = model(
        **(heard(lengths) if norm == "layer" else {"input_values": torch.tensor(AUDIO)}),
        mask_time_indices=torch.tensor(masked),
        sampled_negative_indices=torch.tensor(others),
    )
    chosen = out.projected_quantized_states[torch.tensor(masked)]
    assert len(chosen.unique(dim=0)) < len(chosen), "no negative with the codes of the target"
    count = masked.sum()
    energy = latents[0].transpose(1, 2)[torch.tensor(real)].square().mean()
    loss = out.loss / count + 10 * energy
    loss.backward()

    assert_layers_close(ours, recorded, last[0], real)
    (found,) = ours.calls["trained speech features"]
    assert_close(found[0], latents[0].transpose(1, 2).detach(), real, what="latents")
    assert_close(
        ours.calls["trained wav2vec2_target_head call"][0],
        out.projected_quantized_states.detach(),
        real,
        what="targets",
    )
    assert_close(ours.metric("contrastive"), out.contrastive_loss.item() / count)
    assert_close(ours.metric("diversity"), out.diversity_loss.item() / count)
    assert_close(GROUPS * ours.metric("probability_perplexity"), out.codevector_perplexity.item())
    assert_close(ours.metric("latent_energy"), energy.item())
    assert_close(ours.value, loss.item())
    assert_gradients_close(ours.gradients, names.carried(pair.table, gradients(model), "gradient"))

    if norm == "group":  # where lengths differ, theirs hears every utterance alone
        ours = pair.ours(LENGTHS)
        real, masked = masks(LENGTHS)
        (encoded,) = ours.calls["trained speech contextualise"]
        for b, (samples, tokens) in enumerate(zip(LENGTHS, token_counts(LENGTHS), strict=True)):
            recorded.clear()
            out = model.wav2vec2(
                torch.tensor(AUDIO[b : b + 1, :samples]),
                mask_time_indices=torch.tensor(masked[b : b + 1, :tokens]),
            )
            for state, layer in zip(recorded, encoded.layers, strict=True):
                assert_close(layer[b, :tokens], state[0].detach())
            assert_close(encoded.tokens[b, :tokens], out.last_hidden_state[0].detach())


# HuBERT and WavLM


@pytest.mark.parametrize("method", ["hubert", "wavlm"])
def test_masked_units(method):
    """Their encoder; the loss, which they lack, is HuBERT's formulas (section III-B) in PyTorch."""
    torch.manual_seed(1)
    settings = by_layers()
    if method == "hubert":
        model = transformers.HubertModel(transformers.HubertConfig(**settings))
        objective = HuBERT(source="stream", **SPANS, unit_rate=1600.0, on_unmasked=0.5)
        modules = {"speech": encoder(sample_rate=16_000)}
        on_visible = 0.5
    else:
        model = transformers.WavLMModel(transformers.WavLMConfig(**settings))
        objective = WavLM(source="stream", **SPANS, unit_rate=1600.0, mixing=0.0)
        modules = {"speech": encoder(relative_position="gated")}
        on_visible = 0.0
    head, codes = torch.nn.Linear(WIDTH, 10), torch.nn.Embedding(7, 10)
    whole = randomised(torch.nn.ModuleDict({"model": model, "head": head, "codes": codes}))
    table = names.wave_encoder("model.", depth=DEPTH, convolutions=3, norms="layer")
    if method == "wavlm":
        table |= names.gated_positions("model.", DEPTH)
    table |= names.dense(f"{method}_head", "head")
    table[f"{method}_codebook/code_embedding"] = names.source("codes.weight")
    modules |= {f"{method}_head": Dense(10), f"{method}_codebook": Codebook(7, 10)}

    units = np.random.default_rng(2).integers(0, 7, (3, 2 * TOKENS)).astype(np.int32)
    units[0, -6:] = -1
    batch = {"audio": AUDIO, "audio_lengths": LENGTHS, "units": units}
    tensors = weights(whole)
    names.assert_complete(table, shapes_of(modules, objective, batch), tensors)
    ours = runner(modules, objective, RNG)(names.carried(table, tensors), batch)

    real, masked = masks(LENGTHS)
    labels = units[:, ::2]
    there = real & (labels >= 0)
    recorded, latents = states(model), outputs_of([model.feature_extractor])
    last = model(**heard(LENGTHS), mask_time_indices=torch.tensor(masked)).last_hidden_state
    logits = functional.cosine_similarity(head(last)[:, :, None], codes.weight, dim=-1) / 0.1

    def cross_entropy(where):
        where = torch.tensor(where)
        return functional.cross_entropy(
            logits[where], torch.tensor(labels).long()[where], reduction="sum"
        )

    hidden, visible = cross_entropy(there & masked), cross_entropy(there & ~masked)
    counted = there if on_visible else there & masked
    energy = latents[0].transpose(1, 2)[torch.tensor(real)].square().mean()
    loss = (hidden + on_visible * visible) / counted.sum() + 10 * energy
    loss.backward()

    assert_layers_close(ours, recorded, last, real)
    assert_close(ours.metric("masked_loss"), hidden.item() / (there & masked).sum())
    assert_close(ours.metric("unmasked_loss"), visible.item() / (there & ~masked).sum())
    assert_close(ours.value, loss.item())
    assert_gradients_close(ours.gradients, names.carried(table, gradients(whole), "gradient"))


def test_wavlm_buckets():
    """Tokens up to 1,000 apart, far beyond what the models above see."""
    attention = transformers.models.wavlm.modeling_wavlm.WavLMAttention(8, 2)
    distance = torch.arange(1000)[None] - torch.arange(1000)[:, None]
    theirs = attention._relative_positions_bucket(distance)
    np.testing.assert_array_equal(distance_buckets(1000), theirs.numpy())


# data2vec


def data2vec_model(seed: int):
    """Data2VecAudioModel, its post-norm blocks replaced by Wav2Vec2's pre-norm ones."""
    torch.manual_seed(seed)
    settings = by_layers() | {"num_conv_pos_embeddings": 2}
    model = transformers.Data2VecAudioModel(
        transformers.Data2VecAudioConfig(**settings, conv_pos_kernel_size=5)
    )
    wav2vec2 = transformers.models.wav2vec2.modeling_wav2vec2
    blocks = wav2vec2.Wav2Vec2EncoderStableLayerNorm(transformers.Wav2Vec2Config(**settings))
    blocks.pos_conv_embed = model.encoder.pos_conv_embed
    model.encoder = blocks
    return model


def test_data2vec():
    """Targets, regression and gradients. Several position convolutions carry padding into what is real,
    which ours hides: theirs hears one utterance at a time.
    """
    average, settings = 2, {"positions": 5, "position_layers": 2}
    student, teacher, head = data2vec_model(0), data2vec_model(1), torch.nn.Linear(WIDTH, WIDTH)
    whole = randomised(torch.nn.ModuleDict({"model": student, "head": head}))
    teacher = randomised(teacher, seed=1).eval()
    places = {"depth": DEPTH, "convolutions": 3, "norms": "layer", "position_layers": 2}
    table = names.wave_encoder("model.", **places) | names.dense("data2vec_head", "head")
    modules = {"speech": encoder(**settings), "data2vec_head": Dense(WIDTH)}
    objective = Data2VecAudio(
        source="stream", teacher=Teacher(nets=("speech",)), average=average, **SPANS
    )
    batch = {"audio": AUDIO, "audio_lengths": LENGTHS}
    tensors = weights(whole)
    names.assert_complete(table, shapes_of(modules, objective, batch), tensors)
    taught = names.carried(names.wave_encoder("", **places), weights(teacher))
    ours = runner(modules, objective, RNG)(names.carried(table, tensors), batch, taught)

    _, masked = masks(LENGTHS, at_least=1)
    seen, shown = states(student), states(teacher)
    total = torch.zeros(())
    for b, (samples, tokens) in enumerate(zip(LENGTHS, token_counts(LENGTHS), strict=True)):
        seen.clear(), shown.clear()
        row, hidden = torch.tensor(AUDIO[b : b + 1, :samples]), torch.tensor(masked[b, :tokens])
        with torch.no_grad():
            latents = student.feature_extractor(row).transpose(1, 2)
            told = teacher.encoder(teacher.feature_projection(latents)[0]).last_hidden_state
        normal = [functional.instance_norm(x.transpose(1, 2)) for x in shown[-average:]]
        target = sum(normal).transpose(1, 2)[0] / average
        last = student(row, mask_time_indices=hidden[None]).last_hidden_state
        errors = functional.mse_loss(head(last)[0], target, reduction="none").sum(-1)
        total = total + errors[hidden].sum() / WIDTH**0.5
        for role, recorded, final in (("trained", seen, last), ("teacher", shown, told)):
            (encoded,) = ours.calls[f"{role} speech contextualise"]
            for state, layer in zip(recorded, encoded.layers, strict=True):
                assert_close(layer[b, :tokens], state[0].detach(), what=role)
            assert_close(encoded.tokens[b, :tokens], final[0].detach(), what=role)
    loss = total / masked.sum()
    loss.backward()
    assert_close(ours.value, loss.item())
    assert_gradients_close(ours.gradients, names.carried(table, gradients(whole), "gradient"))


# CTC


def test_ctc():
    """Logits, loss and gradients of Wav2Vec2ForCTC; the last row has more labels than states."""
    vocabulary = 30
    text = np.full((3, 9), PAD, np.int32)
    words = [[20, 21, 21, 22], [25, 20], [21, 22, 23, 24, 25, 26]]
    for row, ids in zip(text, words, strict=True):
        row[: len(ids) + 2] = [CLS, *ids, SEP]
    labels = np.full((3, 6), -100, np.int64)
    for row, ids in zip(labels, words, strict=True):
        row[: len(ids)] = ids
    torch.manual_seed(3)
    config = transformers.Wav2Vec2Config(
        **by_layers(),
        vocab_size=vocabulary,
        pad_token_id=PAD,
        ctc_loss_reduction="sum",
        ctc_zero_infinity=True,
        apply_spec_augment=False,
    )
    model = randomised(transformers.Wav2Vec2ForCTC(config))
    table = names.wave_encoder("wav2vec2.", depth=DEPTH, convolutions=3, norms="layer")
    table |= names.dense("ctc_head", "lm_head")
    modules = {"speech": encoder(), "ctc_head": Dense(vocabulary)}
    objective = CTC(source="stream", input="audio", skip_full=False)
    batch = {"audio": AUDIO, "audio_lengths": LENGTHS, "text": text, "text_mask": text != PAD}
    tensors = weights(model)
    names.assert_complete(table, shapes_of(modules, objective, batch), tensors)
    ours = runner(modules, objective, RNG)(names.carried(table, tensors), batch)

    recorded, last = states(model.wav2vec2), outputs_of([model.wav2vec2.encoder.layer_norm])
    out = model(**heard(LENGTHS), labels=torch.tensor(labels))
    characters = len(words[0]) + len(words[1])
    (out.loss / characters).backward()
    real = masks(LENGTHS)[0]
    call = "trained speech call"
    assert_layers_close(ours, recorded, last[0], real, call)
    assert_close(ours.calls["trained ctc_head call"][0], out.logits.detach(), real, what="logits")
    assert ours.metric("too_long") == pytest.approx(1 / 3)
    assert_close(ours.value, out.loss.item() / characters)
    assert_gradients_close(ours.gradients, names.carried(table, gradients(model), "gradient"))
