"""Characters from voices: connectionist temporal classification on frozen states, with few labels.

A softmax-weighted sum of the encoder's layers (SUPERB, arXiv 2105.01051; every channel standardised
over the training states) and one linear map to the characters and the blank, trained with CTC (Graves
et al. 2006, optax.ctc_loss) and decoded greedily. The character error rate (jiwer) is that on
recordings of held-out things: new words. Labels: minutes of training recordings, drawn at random.
Transfer: trained on some languages, asked in another one. States are averaged down to about 50 a
second. Log-mel frames and the encoder's untrained states, treated in the same way, are the baselines;
writing nothing gives 100.
"""

from __future__ import annotations

import collections
import dataclasses
import functools
import pathlib
import unicodedata
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from taichu_jax.data.audio import RATE as SAMPLE_RATE
from taichu_jax.errors import UserError
from taichu_jax.evals.decoding.ctc import BLANK, greedy
from taichu_jax.evals.features import collect
from taichu_jax.evals.hidden import at_rate, every_layer, trained_and_not
from taichu_jax.evals.media import Originals
from taichu_jax.models.layers import Encoded
from taichu_jax.models.speech import FRAME_RATE
from taichu_jax.ops.lengths import within

RATE = 50  # states per second
LABELS = 64  # characters of the longest text that is trained on
CLASSES = 96  # the blank and the commonest characters; one size, so that one program serves all


@dataclasses.dataclass(frozen=True, kw_only=True)
class CharacterProbe:
    """See the module's docstring.

    Attributes:
      stream: a `Recordings` stream; its split and languages are replaced.
      encoder: the network's name.
      languages: whose recordings are learnt from and asked.
      minutes: how much of them is labelled, one training each.
      transfer: of `languages`, the one that is only asked, in a training on all the others; '' for
        none.
      steps, batch_size, learning_rate: of the linear map's training with Adam.
      log_mel: computes that baseline, which is the same for every run on the same data.
    """

    stream: Any
    encoder: str = "speech"
    languages: tuple[str, ...] = ("fr", "ro", "es", "ca")
    minutes: tuple[float, ...] = (10.0, 60.0)
    transfer: str = "ro"
    steps: int = 300
    batch_size: int = 32
    learning_rate: float = 1e-2
    log_mel: bool = True

    def run(self, run, out_dir: pathlib.Path) -> dict[str, Any]:
        """Character error rates in percent of the trained encoder and of the baselines."""
        del out_dir
        if self.transfer and self.transfer not in self.languages:
            raise UserError(f"transfer={self.transfer!r}: is not in languages={self.languages}")
        stream = dataclasses.replace(self.stream, languages=self.languages)
        sources = [(stream, trained_and_not(run, self.encoder, "audio", _layers))]
        if self.log_mel:
            sources.append((dataclasses.replace(stream, audio="mel"), _mel))
        rows = {}
        for source, function in sources:
            train, test = (_gather(run, source, split, function) for split in ("train", "test"))
            for name in train:
                scaled = _standardised(train[name], test[name])
                rows[name] = self._rates(*scaled, run.config.seed)
        return {"rows": rows, "languages": list(self.languages), "transfer": self.transfer}

    def _rates(self, train: Heard, test: Heard, seed: int) -> dict[str, float]:
        rng = np.random.default_rng(seed)
        order = rng.permutation(len(train.words))
        spoken = np.cumsum(train.seconds[order])
        result = {}
        for minutes in self.minutes:
            rows = order[: np.searchsorted(spoken, 60 * minutes) + 1]
            wanted = np.arange(len(test.words))
            result[f"{minutes:g} min"] = self._error_rate(train, rows, test, wanted, rng)
        if self.transfer:
            rows = order[train.languages[order] != self.transfer]
            wanted = np.flatnonzero(test.languages == self.transfer)
            key = f"to {self.transfer}"
            result[key] = self._error_rate(train, rows, test, wanted, rng)
        return result

    def _error_rate(self, train: Heard, rows, test: Heard, wanted, rng) -> float:
        """Learns from the rows of `train`; the error rate on the wanted rows of `test`."""
        import jiwer

        used = collections.Counter(c for row in rows for c in train.words[row])
        alphabet = [c for c, _ in used.most_common(CLASSES - 1)]
        number = {c: i + 1 for i, c in enumerate(alphabet)}
        labels = np.zeros((len(train.words), LABELS), np.int32)
        for row in rows:
            ids = [number[c] for c in train.words[row][:LABELS] if c in number]
            labels[row, : len(ids)] = ids
        batches = rng.choice(rows, (self.steps, self.batch_size))
        weights = _train(train.states, train.mask, labels, batches, self.learning_rate, CLASSES)
        scores = _scores(weights, test.states)[..., : len(alphabet) + 1]
        scores, real = np.asarray(scores), np.asarray(test.mask)
        written = ["".join(alphabet[k - 1] for k in greedy(scores[i][real[i]])) for i in wanted]
        return 100.0 * float(jiwer.cer([test.words[i] for i in wanted], written))


class Heard(NamedTuple):
    """Recordings of one split: states [N, T, L, D], mask bool [N, T], words, languages, seconds."""

    states: jax.Array
    mask: jax.Array
    words: list[str]
    languages: np.ndarray
    seconds: np.ndarray


def letters(text: str) -> str:
    """Lower case, letters and single spaces only, composed (NFC)."""
    plain = unicodedata.normalize("NFC", text).lower()
    return " ".join("".join(c if c.isalpha() else " " for c in plain).split())


def _mel(nets, batch):
    del nets
    mask = within(batch["mel_lengths"], batch["mel"].shape[1])
    return {"log-mel": _layers(Encoded(tokens=batch["mel"], mask=mask, rate=FRAME_RATE))}


def _layers(encoded: Encoded) -> dict[str, jax.Array]:
    """States of all layers as wide as the last one, at about RATE, as float16."""
    every = max(1, round(encoded.rate / RATE))
    width = encoded.tokens.shape[-1]
    layers = [x for x in every_layer(encoded) if x.shape[-1] == width]
    mask = encoded.mask
    states = []
    for layer in layers:
        slow, mask = at_rate(layer.astype(jnp.float32), encoded.mask, every)
        states.append(slow)
    return {"states": jnp.stack(states, 2).astype(jnp.float16), "mask": mask}


def _gather(run, stream, split: str, function) -> dict[str, Heard]:
    """What every encoder of `function` hears in a split."""
    stream = dataclasses.replace(stream, split=split)
    form = stream.audio if stream.audio == "mel" else "audio"
    fields, found = collect(run, stream, function, ("example", f"{form}_lengths"))
    originals, examples = Originals(run, stream), stream.examples(run.config.data.dir)
    words = [letters(originals.text(i)) for i in fields["example"]]
    languages = np.array([examples[i][1] for i in fields["example"]])
    keep = np.array([bool(text) for text in words])
    rate = FRAME_RATE if form == "mel" else SAMPLE_RATE
    return {
        name: Heard(
            states=jnp.asarray(heard["states"][keep]),
            mask=jnp.asarray(heard["mask"][keep]),
            words=[text for text in words if text],
            languages=languages[keep],
            seconds=fields[f"{form}_lengths"][keep] / rate,
        )
        for name, heard in found.items()
    }


def _standardised(train: Heard, test: Heard) -> tuple[Heard, Heard]:
    """Every channel of every layer with mean 0 and variance 1 over the real states of `train`.

    Else the linear map would see first what is large, and few steps would not show what is there.
    """
    real = train.mask[:, :, None, None]

    def mean(values):
        return jnp.where(real, values, 0).sum((0, 1)) / jnp.maximum(real.sum((0, 1)), 1)

    states = train.states.astype(jnp.float32)
    centre = mean(states)
    scale = jax.lax.rsqrt(mean(jnp.square(states - centre)) + 1e-6)

    def scaled(heard):
        values = (heard.states.astype(jnp.float32) - centre) * scale
        return heard._replace(states=values.astype(jnp.float16))

    return scaled(train), scaled(test)


def _scores(weights, states):
    """Logits [N, T, characters + 1] of states [N, T, L, D]."""
    share = jax.nn.softmax(weights["layers"])
    mixed = jnp.einsum("ntld,l->ntd", states.astype(jnp.float32), share)
    return mixed @ weights["kernel"] + weights["bias"]


@functools.partial(jax.jit, static_argnames=("rate", "classes"))
def _train(states, mask, labels, batches, rate: float, classes: int):
    """The weights after one step of Adam for every row of `batches` int32 [steps, B]."""
    import optax

    optimiser = optax.adam(optax.cosine_decay_schedule(rate, len(batches)))
    first = {
        "layers": jnp.zeros(states.shape[2]),
        "kernel": jnp.zeros((states.shape[3], classes)),
        "bias": jnp.zeros(classes),
    }

    def loss(weights, rows):
        real, wanted = mask[rows], labels[rows]
        logits = _scores(weights, states[rows])
        padded, unused = (~real).astype(jnp.float32), (wanted == 0).astype(jnp.float32)
        losses = optax.ctc_loss(logits, padded, wanted, unused, blank_id=BLANK)
        # Words that are longer than the states allow have no alignment.
        repeated = (wanted[:, 1:] == wanted[:, :-1]) & (wanted[:, 1:] > 0)
        fits = (wanted > 0).sum(1) + repeated.sum(1) <= real.sum(1)
        return jnp.where(fits, losses, 0).sum() / jnp.maximum(fits.sum(), 1)

    def step(carry, rows):
        weights, state = carry
        updates, state = optimiser.update(jax.grad(loss)(weights, rows), state)
        return (optax.apply_updates(weights, updates), state), None

    (weights, _), _ = jax.lax.scan(step, (first, optimiser.init(first)), jnp.asarray(batches))
    return weights
