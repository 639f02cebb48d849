"""OPT's token level: masked words, picture patches and speech frames (arXiv 2107.00249, eqs. 2-8).

With 15 % of the tokens of every modality hidden, and all three read together,

    L = L_MLM + L_MVM + L_MAM
    L_MLM = - E log P(T_m | T_\\m, V, A)                                               (2)
    L_MVM = E ||h(V_m) - V_m||^2  [ + CE(g(V_m), label), with `patch_labels` ]          (3, 4, 5)
    L_MAM = E ||h(A_m) - A_m||^2 - log e^{sim(h(A_m), A_m)} /
              ( e^{sim(h(A_m), A_m)} + sum_{j unmasked} e^{sim(h(A_m), A_j)} )          (6, 7, 8)

sim is the cosine. V are the pixels of a patch (from -1 to 1) and A the log-mel frames of a token: the
encoders are trained together with the rest, so their inputs are the features that cannot collapse;
the paper's are those of a frozen detector and a frozen wav2vec 2.0. Squared errors are means over the
values of a token, so that the terms do not depend on the patch size.

Batch: see `Encoders`; optionally the field that `patch_labels` names, int32 [B, N], -1 where there is
no label (the paper's are a detector's classes; patches have none by themselves).
Networks: the encoders (text with the method `logits`), the fusion, `image_head`, `audio_head`, and
`label_head` where labels are given.
Defaults: 15 % and 80/10/10 from the paper; temperature 1 because it prints none. What the released
code does instead is `text_masking="fixed"` (two [MASK] in every text), `whole_modality=0.3` (the
modality is hidden entirely with this probability) and `audio_contrast="released"`, whose logits are
(1 - cos) / 0.1 with ten neighbouring rows of the batch as negatives: minimising it drives the
prediction away from its target, so it is kept for comparison only.
Checked against: every term in NumPy; exact mask statistics.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp

from taichu_jax.config import choices
from taichu_jax.errors import UserError
from taichu_jax.models.fusion import split
from taichu_jax.objectives.base import Loss, Objective, mean_of
from taichu_jax.objectives.multimodal.encoders import Encoders, first_rows, present
from taichu_jax.ops.classification import cross_entropy
from taichu_jax.ops.frames import stack_frames
from taichu_jax.ops.lengths import within
from taichu_jax.ops.masking import choose_exactly, corrupt_tokens, share_of
from taichu_jax.ops.monitors import feature_std
from taichu_jax.ops.patches import centred, patchify
from taichu_jax.ops.random import fold_name
from taichu_jax.ops.vocabulary import FIRST_TOKEN, MASK

TEXT_MASKINGS = ("bert", "fixed")
AUDIO_CONTRASTS = ("paper", "released")
RELEASED_NEGATIVES, RELEASED_TEMPERATURE = 10, 0.1
RELEASED_TEXT_MASKS = 2  # ceil(0.15 * 10)


def hide(rng: jax.Array, allowed: jax.Array, rate: float, whole: float) -> jax.Array:
    """bool [B, N]: a share `rate` of the allowed positions; all of them with probability `whole`."""
    positions, everything = jax.random.split(rng)
    chosen = choose_exactly(positions, allowed, share_of(allowed, rate))
    all_of_row = jax.random.uniform(everything, (allowed.shape[0], 1)) < whole
    return jnp.where(all_of_row, allowed, chosen)


def contrast(
    predicted: jax.Array, target: jax.Array, masked: jax.Array, unmasked: jax.Array
) -> jax.Array:
    """Eq. 8 at every position [B, N]: the own frame against the unmasked frames of the utterance.

    Args:
      predicted, target: [B, N, D].
      masked, unmasked: bool [B, N], the hidden and the visible real frames.
    """
    similarity = jnp.einsum("bnd,bmd->bnm", _unit(predicted), _unit(target))
    own = jnp.diagonal(similarity, axis1=1, axis2=2)
    negatives = jnp.where(unmasked[:, None, :], similarity, -jnp.inf)
    scores = jnp.concatenate([own[..., None], negatives], -1)
    losses = jax.nn.logsumexp(scores, -1) - own
    return jnp.where(masked, losses, 0.0)


def contrast_as_released(predicted: jax.Array, target: jax.Array, masked: jax.Array) -> jax.Array:
    """The released code's term at every position [B, N], with its sign error.

    Negatives are the five rows before and the five after in the flattened batch (at its ends the ten
    that are nearest), across examples, with hidden frames already set to zero.
    """
    flat_prediction = _unit(predicted).reshape(-1, predicted.shape[-1])
    flat_target = _unit(target).reshape(-1, target.shape[-1])
    visible = jnp.where(masked.reshape(-1, 1), 0.0, flat_target)
    rows, last = jnp.arange(len(visible)), len(visible) - 1
    first = jnp.clip(rows - RELEASED_NEGATIVES // 2, 0, max(0, last - RELEASED_NEGATIVES))
    scores = [1 - (flat_prediction * flat_target).sum(-1)]
    for i in range(RELEASED_NEGATIVES + 1):  # eleven neighbours, of which one is the row itself
        other = first + i
        distance = 1 - (flat_prediction * visible[jnp.minimum(other, last)]).sum(-1)
        scores.append(jnp.where((other == rows) | (other > last), -jnp.inf, distance))
    logits = jnp.stack(scores, -1) / RELEASED_TEMPERATURE
    losses = -jax.nn.log_softmax(logits)[:, 0].reshape(masked.shape)
    return jnp.where(masked, losses, 0.0)


def _unit(x: jax.Array) -> jax.Array:
    x = x.astype(jnp.float32)
    return x * jax.lax.rsqrt(jnp.maximum(jnp.square(x).sum(-1, keepdims=True), 1e-12))


@dataclasses.dataclass(frozen=True, kw_only=True)
class OPTTokenLevel(Objective):
    """See the module's docstring.

    Attributes:
      vocab_size: random replacements of words are drawn below it.
      patch: side of the image encoder's patches, in pixels.
      stride: mel frames per token of the audio encoder.
      encoders, image_head, audio_head, label_head: names of the networks.
      rate: share of the tokens that is hidden.
      patch_labels: the batch field with classes of patches, for eq. 5; none by default.
      share: share of the batch's examples that is used, to save time.
    """

    vocab_size: int
    patch: int
    stride: int
    encoders: Encoders = Encoders()
    image_head: str = "image_prediction"
    audio_head: str = "audio_prediction"
    label_head: str = "label_prediction"
    rate: float = 0.15
    whole_modality: float = 0.0
    text_masking: str = "bert"
    audio_contrast: str = "paper"
    patch_labels: str | None = None
    share: float = 1.0

    def __post_init__(self):
        for name, valid in (("text_masking", TEXT_MASKINGS), ("audio_contrast", AUDIO_CONTRASTS)):
            value = getattr(self, name)
            if value not in valid:
                raise UserError(f"{name}={value!r}; {choices(value, valid)}")

    def loss(self, nets, batch, memory, rng):
        batch = first_rows(batch, self.share)
        seen = self.look(nets, batch, rng)
        text, image, audio = (seen["states"][k] for k in ("text", "image", "audio"))
        hidden = seen["hidden"]

        logits = nets(self.encoders.text, text, method="logits")
        words, right, word_count = cross_entropy(logits, batch["text"], hidden["text"])

        pixels = centred(patchify(batch["image"], self.patch)).astype(jnp.float32)
        drawn = nets(self.image_head, image).astype(jnp.float32)
        image_count = hidden["image"].sum()
        errors = jnp.square(drawn - pixels).mean(-1)
        mvfr = mean_of(jnp.where(hidden["image"], errors, 0.0).sum(), image_count)

        frames = stack_frames(batch["mel"], batch["mel_lengths"], self.stride).astype(jnp.float32)
        heard = nets(self.audio_head, audio).astype(jnp.float32)
        audio_count = hidden["audio"].sum()
        errors = jnp.square(heard - frames).mean(-1)
        mafr = mean_of(jnp.where(hidden["audio"], errors, 0.0).sum(), audio_count)
        if self.audio_contrast == "paper":
            terms = contrast(heard, frames, hidden["audio"], seen["real_audio"] & ~hidden["audio"])
        else:
            terms = contrast_as_released(heard, frames, hidden["audio"])
        contrastive = mean_of(terms.sum(), audio_count)

        mlm = mean_of(words, word_count)
        losses = {"mlm": mlm, "mvfr": mvfr, "mafr": mafr, "audio_contrast": contrastive}
        metrics = {"mlm_accuracy": (right, word_count)}
        if self.patch_labels is not None:
            labels = batch[self.patch_labels]
            known = hidden["image"] & (labels >= 0)
            scores = nets(self.label_head, image)
            total, right, count = cross_entropy(scores, jnp.maximum(labels, 0), known)
            losses["mrc"] = mean_of(total, count)
            metrics["mrc_accuracy"] = (right, count)
        metrics |= {name: (value, jnp.ones(())) for name, value in losses.items()}
        metrics["feature_std"] = feature_std(seen["states"]["cls"])
        return Loss(sum(losses.values()), metrics)

    def look(self, nets, batch, rng):
        """Hides tokens and reads what is left: {"states": by modality, "hidden": masks, ...}."""
        has = present(batch)
        tokens = batch["text"]
        key = fold_name(rng, "text")
        allowed = batch["text_mask"] & (tokens >= FIRST_TOKEN) & has["text"][:, None]
        if self.text_masking == "bert":
            hidden_text = hide(fold_name(key, "positions"), allowed, self.rate, self.whole_modality)
            rates = {}
        else:
            count = jnp.minimum(RELEASED_TEXT_MASKS, allowed.sum(-1))
            hidden_text = choose_exactly(fold_name(key, "positions"), allowed, count)
            rates = {"mask_rate": 1.0, "random_rate": 0.0}
        corrupted = corrupt_tokens(
            fold_name(key, "corruption"),
            tokens,
            hidden_text,
            mask_token=MASK,
            first_token=FIRST_TOKEN,
            vocab_size=self.vocab_size,
            **rates,
        )
        size, (height, width) = len(tokens), batch["image"].shape[1:3]
        patches = (height // self.patch) * (width // self.patch)
        real_image = jnp.broadcast_to(has["image"][:, None], (size, patches))
        hidden_image = hide(fold_name(rng, "image"), real_image, self.rate, self.whole_modality)
        count = -(-batch["mel"].shape[1] // self.stride)
        real_audio = within(-(-batch["mel_lengths"] // self.stride), count) & has["audio"][:, None]
        hidden_audio = hide(fold_name(rng, "audio"), real_audio, self.rate, self.whole_modality)
        encoded = self.encoders.encode(
            nets, batch, text=corrupted, image_mask=hidden_image, audio_mask=hidden_audio
        )
        fused = self.encoders.fuse(nets, encoded)
        lengths = {name: part.tokens.shape[1] for name, part in encoded.items()}
        return {
            "states": split(fused.tokens, **lengths),
            "hidden": {"text": hidden_text, "image": hidden_image, "audio": hidden_audio},
            "real_audio": real_audio,
        }
