"""What is said, character by character: CTC on frozen states (SUPERB, arXiv 2105.01051).

A linear map from the states of one layer, or of the weighted sum of all, to the characters and the blank,
trained with CTC (Graves et al. 2006) and decoded greedily; states are averaged down to about 50 a second.
The character error rate (jiwer) is in percent of what was said; writing nothing gives 100. Only as many
recordings are used as fit into memory.
"""

from __future__ import annotations

import collections
import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from scipy.special import softmax

from taichu_jax.data.items import Damaged
from taichu_jax.errors import UserError
from taichu_jax.evals.character_probe import letters
from taichu_jax.evals.decoding.ctc import BLANK, greedy
from taichu_jax.evals.hidden import at_rate
from taichu_jax.probing.collect import affordable, gathered
from taichu_jax.probing.encoder import Encoder, every_layer
from taichu_jax.probing.examples import TEST, TRAIN, thinned
from taichu_jax.probing.heads.attentive import statistics
from taichu_jax.probing.heads.fitting import fit, in_parts
from taichu_jax.probing.scratch import Head, from_scratch
from taichu_jax.probing.tasks.base import SCRATCH, Study, best, curve, result, row

RATE = 50  # states a second
LABELS = 64  # characters of the longest text that is learnt from
CLASSES = 96  # the blank and the commonest characters
LINEAR, WEIGHTED = "linear", "weighted sum"
HEADS = (LINEAR, WEIGHTED)
STEPS, SIZE, DECAY = 300, 16, 1e-3
SPEED = 3e-2  # learning rate: with less, few steps end where only blanks are written
FEWEST = 5  # training recordings


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recognition:
    """See the module's docstring.

    Attributes:
      steps: of a head's training.
    """

    test_split: str = TEST
    steps: int = STEPS

    def run(self, study: Study) -> dict[str, Any]:
        """Character error rates of all systems."""
        said = functools.cache(lambda i: _said(study, i))
        whole = {s: study.split(s) for s in (TRAIN, self.test_split)}
        room = affordable(_values(study.encoder))
        train, test = (
            [i for i in study.usable(thinned(rows, room // 2)) if said(i)]
            for rows in whole.values()
        )
        if len(train) < FEWEST or not test:
            raise UserError(
                f"{study.examples.name}: ctc needs recordings with texts; found {len(train)} in the "
                f"training split, {len(test)} in {self.test_split!r}, at least {FEWEST} and 1 are needed"
            )
        dev = study.development(train)
        counts = collections.Counter(c for i in train for c in said(i))
        alphabet = [c for c, _ in counts.most_common(CLASSES - 1)]
        labels = np.stack([_labels(said(i), alphabet) for i in train])
        texts, test_texts = ([said(i) for i in rows] for rows in (train, test))

        rows = [row("writing nothing", "baseline", dict.fromkeys(HEADS, 100.0))]
        curves = []
        for name, encoder in study.systems(train).items():
            study.say(name)
            line, seen = self._system(
                study, name, encoder, train, test, labels, texts, test_texts, alphabet, dev
            )
            rows.append(line)
            curves.append(seen)
        if study.scratch_steps:
            study.say(SCRATCH)
            head = Head(CLASSES, _last, _scratch_loss)
            logits, mask = from_scratch(
                study.encoder,
                head,
                study.examples,
                train,
                labels,
                test,
                steps=study.scratch_steps,
                seed=study.seed,
            )
            score = error_rate(test_texts, logits, mask, alphabet)
            rows.insert(-1, row(SCRATCH, "baseline", {LINEAR: score}, steps=study.scratch_steps))
        cut = sum(len(x) for x in whole.values()) - len(train) - len(test)
        return result(
            f"characters said, of {len(alphabet)} ({self.test_split})",
            "character error rate in percent",
            HEADS,
            rows,
            curves,
            train=len(train),
            development=int(dev.sum()),
            test=len(test),
            higher=False,
            notes=[f"{cut:,} recordings not used: limit, memory, or no text"] if cut else [],
        )

    def _system(
        self, study, name, encoder, train, test, labels, texts, test_texts, alphabet, dev
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        same = [i for i, width in enumerate(encoder.widths) if width == encoder.widths[-1]]
        read = _slow(tuple(same))
        states, mask = gathered(encoder, study.examples, train, read)
        test_states, test_mask = gathered(encoder, study.examples, test, read)
        scales = [statistics(states[:, :, i], mask) for i in range(len(same))]
        scale = {key: np.stack([x[key] for x in scales]) for key in ("mean", "inverse")}  # [L, D]

        def learnt(layers, rows):
            start = _start(len(layers), states.shape[-1], scale, layers)
            data = (states[rows][:, :, layers], mask[rows], labels[rows])
            return fit(
                _loss,
                start,
                data,
                decay=DECAY,
                seed=study.seed,
                steps=self.steps,
                size=SIZE,
                rate=SPEED,
            )

        def rate(params, some, real, wanted):
            return error_rate(wanted, in_parts(_scores, params, some), real, alphabet)

        wanted = [text for text, held in zip(texts, dev, strict=True) if held]
        values = []
        for i in range(len(same)):
            params = learnt([i], ~dev)
            values.append(rate(params, states[dev][:, :, [i]], mask[dev], wanted))
        layer = best(values, higher=False)
        everyone = np.ones(len(dev), bool)
        scores = {
            LINEAR: rate(
                learnt([layer], everyone), test_states[:, :, [layer]], test_mask, test_texts
            )
        }
        names = [encoder.layer_names[i] for i in same]
        seen = curve(name, LINEAR, encoder, values) | {"layers": names}
        kind = "encoder" if name == study.encoder.name else "baseline"
        if len(same) == 1:
            return row(name, kind, scores, {LINEAR: names[layer]}), seen
        params = learnt(list(range(len(same))), everyone)
        scores[WEIGHTED] = rate(params, test_states, test_mask, test_texts)
        shares = dict(zip(names, map(float, softmax(np.asarray(params["layers"]))), strict=True))
        return row(name, kind, scores, {LINEAR: names[layer]}, shares=shares), seen


def error_rate(
    texts: Sequence[str], logits: np.ndarray, mask: np.ndarray, alphabet: Sequence[str]
) -> float:
    """Character error rate in percent of logits [N, T, CLASSES], decoded greedily."""
    import jiwer

    written = []
    for scores, real in zip(logits[..., : len(alphabet) + 1], mask, strict=True):
        ids = greedy(scores[real]) if real.any() else []
        written.append("".join(alphabet[i - 1] for i in ids))
    return 100.0 * float(jiwer.cer(list(texts), written))


def ctc(logits: jax.Array, mask: jax.Array, labels: jax.Array) -> jax.Array:
    """Mean loss of logits [B, T, C]; texts that are longer than their states allow have no path."""
    padded, unused = (~mask).astype(jnp.float32), (labels == 0).astype(jnp.float32)
    losses = optax.ctc_loss(logits.astype(jnp.float32), padded, labels, unused, blank_id=BLANK)
    repeated = (labels[:, 1:] == labels[:, :-1]) & (labels[:, 1:] > 0)
    fits = (labels > 0).sum(1) + repeated.sum(1) <= mask.sum(1)
    return jnp.where(fits, losses, 0).sum() / jnp.maximum(fits.sum(), 1)


def _said(study: Study, i: int) -> str:
    try:
        return letters(study.examples.text(i))
    except Damaged as damage:
        study.harm.add(i, damage)
        return ""


def _values(encoder: Encoder) -> int:
    """Numbers that one recording's states are."""
    every = max(1, round(encoder.shapes.rate / RATE))
    return -(-encoder.shapes.mask.shape[1] // every) * sum(encoder.widths)


def _labels(text: str, alphabet: Sequence[str]) -> np.ndarray:
    """int32 [LABELS]; unknown characters are left out."""
    number = {c: i + 1 for i, c in enumerate(alphabet)}
    ids = [number[c] for c in text[:LABELS] if c in number]
    return np.array(ids + [0] * (LABELS - len(ids)), np.int32)


@functools.cache
def _slow(layers: tuple[int, ...]):
    def read(encoded, arrays):
        del arrays
        every = max(1, round(encoded.rate / RATE))
        found = [
            at_rate(every_layer(encoded)[i].astype(jnp.float32), encoded.mask, every)
            for i in layers
        ]
        return jnp.stack([x for x, _ in found], 2).astype(jnp.float16), found[0][1]

    return read


def _start(count: int, width: int, scale, layers) -> dict[str, np.ndarray]:
    rows = np.array(layers)
    return {
        "layers": np.zeros(count, np.float32),
        "kernel": np.zeros((width, CLASSES), np.float32),
        "bias": np.zeros(CLASSES, np.float32),
        # as vectors: those are not decayed
        "mean": scale["mean"][rows].reshape(-1),
        "inverse": scale["inverse"][rows].reshape(-1),
    }


def _logits(params, states: jax.Array) -> jax.Array:
    """[B, T, CLASSES] of states [B, T, L, D]."""
    shape = states.shape[2:]
    mean, inverse = (jax.lax.stop_gradient(params[k]).reshape(shape) for k in ("mean", "inverse"))
    x = (states.astype(jnp.float32) - mean) * inverse
    mixed = jnp.einsum("btld,l->btd", x, jax.nn.softmax(params["layers"]))
    return mixed @ params["kernel"] + params["bias"]


_scores = jax.jit(_logits)


def _loss(params, batch):
    states, mask, labels = batch
    return ctc(_logits(params, states), mask, labels)


def _last(encoded, arrays) -> jax.Array:
    del arrays
    return encoded.tokens


def _scratch_loss(logits, encoded, labels) -> jax.Array:
    return ctc(logits, encoded.mask, labels)
