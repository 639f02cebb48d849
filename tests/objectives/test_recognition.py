"""What the recognisers share: which ids are labels, which rows count, what gets a gradient and when."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from taichu_jax.errors import UserError
from taichu_jax.objectives.speech.ctc import CTC
from taichu_jax.objectives.speech.recognition import transcript
from taichu_jax.ops.random import fold_name
from taichu_jax.ops.spec_augment import SpecAugment
from taichu_jax.ops.vocabulary import CLS, PAD, SEP, UNK
from taichu_jax.training.nets import BoundNets
from tests import case as cases


def test_transcripts_are_what_lies_between_the_special_ids():
    text = jnp.array(
        [[CLS, 7, UNK, 9, SEP, 8], [CLS, SEP, 9, 9, 9, 9], [9] * 6, [7, CLS, 8, 9, 9, SEP]]
    )
    mask = jnp.arange(6) < jnp.array([[5], [2], [0], [6]])
    labels, count = transcript({"text": text, "text_mask": mask})
    assert labels.tolist() == [
        [7, UNK, 9, PAD, PAD, PAD],
        [PAD] * 6,
        [PAD] * 6,
        [7, 8, 9, 9, PAD, PAD],
    ]
    assert count.tolist() == [3, 0, 0, 4]


def test_rows_that_may_have_been_cut_do_not_count():
    text = jnp.tile(jnp.array([CLS, 7, 8, SEP]), (5, 1))
    batch = {
        "text": text,
        "text_mask": jnp.arange(4) < jnp.array([[3], [4], [3], [2], [1]]),
        "mel": jnp.zeros((5, 8, 2)),
        "mel_lengths": jnp.array([7, 7, 8, 0, 7]),
    }
    assert CTC(source="s").whole(batch).tolist() == [True, False, False, False, False]
    kept = CTC(source="s", skip_full=False).whole(batch)
    assert kept.tolist() == [True, True, True, False, False]


def test_freezing_stops_the_gradient_until_its_step_and_the_front_end_for_ever():
    modules, objective, params, *_ = cases.built("ctc")
    batch = cases.load("ctc").batch
    rng = jax.random.key(0)

    def gradients(params, step, until, front):
        changed = dataclasses.replace(objective, freeze_encoder_until=until, freeze_front_end=front)
        nets = BoundNets(modules, params, step=step)
        return changed.loss(nets, batch, None, rng).value

    run = jax.jit(jax.value_and_grad(gradients), static_argnums=(2, 3))

    def size(tree):
        return max(float(np.abs(g).max()) for g in jax.tree.leaves(tree))

    free = jax.jit(lambda p: gradients(p, 2, 0, False))(params)
    for step, moves in ((2, False), (3, True), (4, True)):
        value, grads = run(params, step, 3, True)
        np.testing.assert_allclose(value, free, rtol=1e-6)
        assert size(grads["speech"]["front"]) == size(grads["speech"]["front_out"]) == 0
        assert (size(grads["speech"]["transformer"]) > 0) == moves
        assert size(grads["ctc_head"]) > 0


def test_augmentation_is_of_training_only():
    modules, objective, params, *_ = cases.built("ctc")
    batch = cases.load("ctc").batch
    rng, plain = jax.random.key(4), dataclasses.replace(objective, augment=None)

    @jax.jit
    def run(params):
        nets = BoundNets(modules, params)
        masked = objective.augment(fold_name(rng, "augment"), batch["mel"], batch["mel_lengths"])
        return (
            objective.hear(nets, batch, rng).tokens,
            plain.hear(nets, batch | {"mel": masked}, rng).tokens,
            objective.hear(nets, batch).tokens,
            plain.hear(nets, batch).tokens,
        )

    augmented, by_hand, heard, expected = run(params)
    np.testing.assert_allclose(augmented, by_hand, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(heard, expected, rtol=1e-5, atol=1e-6)
    assert np.abs(np.asarray(augmented - heard)).max() > 0.01


def test_settings_that_make_no_sense():
    with pytest.raises(UserError, match="input='mle'; did you mean 'mel'"):
        CTC(source="s", input="mle")
    with pytest.raises(UserError, match="SpecAugment needs input='mel'"):
        CTC(source="s", input="audio", augment=SpecAugment())
    with pytest.raises(UserError, match="freeze_encoder_until=-1"):
        CTC(source="s", freeze_encoder_until=-1)
    with pytest.raises(UserError, match="average='character'; did you mean 'characters'"):
        CTC(source="s", average="character")
