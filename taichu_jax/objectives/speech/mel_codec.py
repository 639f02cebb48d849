"""Speech through a few codes and back: residual quantisation of log-mel frames (SoundStream, EnCodec).

    L = w_1 mean |x - y| + w_2 mean (x - y)^2 + a mean_s penalty_s + r mean_unused (e - sg(t))^2

x are log-mel frames, y what the decoder makes of their codes. The penalty of stage s holds the codebook
loss and commitment (models/residual_quantiser.py, which has the equations); the means run over real
frames, real tokens and the stages in use. With probability `stage_dropout` a recording uses only its
first n stages, n uniform from 1 to all (SoundStream, arXiv 2107.03312), so that any
prefix of the codes can be decoded. Entries whose moving share of the tokens falls below `unused_below`
of an even share are drawn to a residual t of the data (ops/code_revival.py); EnCodec (arXiv 2210.13438)
puts them there.

Both papers code samples and add spectral losses at several scales and adversaries; L1 + L2 between
log-mel frames is EnCodec's spectral loss at one scale, and a vocoder makes the samples.

Batch: `mel` float [B, F, M], log-mel frames at 100 per second, not normalised by utterance if decoded
frames are to be heard; `mel_lengths` int32 [B], in frames.
Networks: `tokeniser` with the methods encode, quantise, synthesise and entries (`MelTokeniser`).
Defaults: L1 and L2 with equal weight and commitment as in EnCodec; a = 1 as for k-means in vq-wav2vec.
The decay of 0.99 is EnCodec's, dropping stages in half of the recordings that of Descript's codec (arXiv
2306.06546), where SoundStream does so in all; r, the threshold and new targets every 200 steps are ours.
Checked against: NumPy loops over frames, tokens and stages, given the same codes; shares of dropped
stages; planted clusters, whose unused entries come back with the last term alone.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp

from taichu_jax.errors import UserError
from taichu_jax.objectives.base import Loss, Objective, counted, mean_of
from taichu_jax.ops.code_revival import all_used, follow_use, revival
from taichu_jax.ops.codebooks import code_shares
from taichu_jax.ops.lengths import within, zero_beyond
from taichu_jax.ops.monitors import feature_std, perplexity
from taichu_jax.ops.random import fold_name


@dataclasses.dataclass(frozen=True, kw_only=True)
class MelCodec(Objective):
    """See the module's docstring.

    Attributes:
      tokeniser: the network's name.
      stages, codes, dim: of its quantiser.
      l1, l2, commitment, revival: w_1, w_2, a and r.
      stage_dropout: share of the recordings that use a random number of stages.
      usage_decay: of the moving share of the tokens that an entry gets.
      unused_below: an entry is unused below this part of an even share.
      renewed_every: steps after which entries that stay unused get another target.
    """

    tokeniser: str = "speech"
    stages: int = 8
    codes: int = 1024
    dim: int = 64
    l1: float = 1.0
    l2: float = 1.0
    commitment: float = 1.0
    revival: float = 1.0
    stage_dropout: float = 0.5
    usage_decay: float = 0.99
    unused_below: float = 0.1
    renewed_every: int = 200

    def memory(self, rng):
        """A `CodeUse`: which entries are used, and where the others are drawn to."""
        del rng
        return all_used(self.stages, self.codes, self.dim)

    def loss(self, nets, batch, memory, rng):
        mel, lengths = batch["mel"], batch["mel_lengths"]
        frames = mel.shape[1]
        here = within(lengths, frames)
        latents, real = nets(self.tokeniser, mel, lengths, method="encode")
        in_use = self._in_use(fold_name(rng, "stages"), len(lengths))
        quantised = nets(self.tokeniser, latents, in_use, method="quantise")
        entries = nets(self.tokeniser, method="entries")
        if entries.shape != (wanted := (self.stages, self.codes, self.dim)):
            raise UserError(
                f"stages, codes, dim = {wanted}: the quantiser of network {self.tokeniser!r} has "
                f"{entries.shape}"
            )
        drawn = nets(self.tokeniser, quantised.vectors, lengths, method="synthesise")[:, :frames]

        target = zero_beyond(mel, here).astype(jnp.float32)
        error = zero_beyond(drawn.astype(jnp.float32), here) - target
        l1, l2 = (counted(f(error), here[..., None]) for f in (jnp.abs, jnp.square))
        used = real[..., None] & (jnp.arange(self.stages) < in_use[:, None, None])
        penalty = counted(quantised.penalty, used)

        use = follow_use(
            memory,
            quantised.indices,
            quantised.residuals,
            real,
            fold_name(rng, "revival"),
            decay=self.usage_decay,
            below=self.unused_below,
            renew=nets.step % self.renewed_every == 0,
        )
        drawn_back = revival(use, entries)
        value = (
            self.l1 * mean_of(*l1)
            + self.l2 * mean_of(*l2)
            + self.commitment * mean_of(*penalty)
            + self.revival * mean_of(*drawn_back)
        )
        metrics = {
            "mel_l1": l1,
            "mel_l2": l2,
            "commitment": penalty,
            "revival": drawn_back,
            "feature_std": feature_std(latents, real),
        }
        shares = code_shares(quantised.indices, real, self.codes)
        for s in range(self.stages):
            metrics[f"code_perplexity_{s + 1}"] = perplexity(shares[s])
            metrics[f"dead_share_{s + 1}"] = counted(use.unused[s])
        return Loss(value, metrics, use)

    def _in_use(self, rng: jax.Array, rows: int) -> jax.Array:
        """int32 [rows]: how many stages each recording uses."""
        count = jax.random.randint(fold_name(rng, "count"), (rows,), 1, self.stages + 1)
        drop = jax.random.bernoulli(fold_name(rng, "rows"), self.stage_dropout, (rows,))
        return jnp.where(drop, count, self.stages)
