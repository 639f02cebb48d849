"""Checkpoints come back as they were, or are passed over by name."""

import pickle
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from taichu_jax.errors import UserError
from taichu_jax.training import checkpoint
from taichu_jax.training.checkpoint import Checkpoints, damage, load_params, newest, steps
from taichu_jax.training.experiment import Experiment
from taichu_jax.training.loop import train
from taichu_jax.training.state import TrainState
from tests.training import tiny


@pytest.fixture
def run(tmp_path):
    """A copy of the finished run; it has the checkpoints 9 and 12."""
    return shutil.copytree(tiny.finished_run(), tmp_path / "run")


def odd_state(size=4):
    """Every kind of thing a state may hold."""
    params = {"net": {"kernel": jnp.arange(size * 2.0).reshape(size, 2), "bias": jnp.ones(3)}}
    memory = {
        "none": None,
        "pair": (jnp.arange(3), {"key": jax.random.key(7)}),
        "half": jnp.ones(2, jnp.bfloat16) / 3,
        "yes": jnp.array([True, False]),
    }
    adam = optax.scale_by_adam().init(params["net"])
    return TrainState(jnp.int32(5), params, adam, {"none": {}}, memory)


def abstract(state):
    return jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), state
    )


def plain(state):
    def numpy(x):
        is_key = jnp.issubdtype(x.dtype, jax.dtypes.prng_key)
        return np.array(jax.random.key_data(x) if is_key else x)

    return jax.tree.map(numpy, state)


def assert_same(one, two):
    assert jax.tree.structure(one) == jax.tree.structure(two)
    jax.tree.map(np.testing.assert_array_equal, plain(one), plain(two))
    assert [x.dtype for x in jax.tree.leaves(one)] == [x.dtype for x in jax.tree.leaves(two)]


def test_a_state_comes_back_bit_for_bit(tmp_path, monkeypatch):
    state = odd_state()
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(state, 5, {"config": "{}"})
    checkpoints.wait()

    def refuse(*_, **__):
        raise AssertionError("a checkpoint must not be unpickled")

    monkeypatch.setattr(pickle, "load", refuse)
    monkeypatch.setattr(pickle, "loads", refuse)
    restored, step, notes = Checkpoints(tmp_path).restore(abstract(state))
    assert (step, notes) == (5, [])
    assert_same(restored, state)
    found, params = load_params(tmp_path)
    assert found == 5
    assert_same(params, state.params)


def test_a_save_holds_the_state_of_its_step_though_the_buffers_are_given_away(tmp_path):
    state = odd_state(size=500_000)
    expected = plain(state.params)
    advance = jax.jit(lambda tree: jax.tree.map(lambda x: x + 1, tree), donate_argnums=0)
    checkpoints = Checkpoints(tmp_path)
    like = abstract(state)
    checkpoints.save(state, 5, {})
    params = state.params
    for _ in range(20):
        params = advance(params)
    checkpoints.wait()
    restored, *_ = checkpoints.restore(like)
    jax.tree.map(np.testing.assert_array_equal, plain(restored.params), expected)


def flip(position):
    def damaged(path, content):
        at = position % len(content)
        path.write_bytes(content[:at] + bytes([content[at] ^ 4]) + content[at + 1 :])

    return damaged


def replace_by_a_folder(path, content):
    path.unlink()
    path.mkdir()


DAMAGES = {
    "first byte": flip(0),
    "middle byte": lambda path, content: flip(len(content) // 2)(path, content),
    "last byte": flip(-1),
    "short of a byte": lambda path, content: path.write_bytes(content[:-1]),
    "emptied": lambda path, content: path.write_bytes(b""),
    "deleted": lambda path, content: path.unlink(),
    "a folder": replace_by_a_folder,
}


def test_every_damage_to_every_file_is_found_and_named(run):
    folder = run / "checkpoints"
    manifest = folder / "_integrity" / "12.json"
    files = sorted(p for p in (folder / "12").rglob("*") if p.is_file())
    assert len(files) > 10
    cases = 0
    for file in [*files, manifest]:
        content = file.read_bytes()
        for name, damaged in DAMAGES.items():
            if not content and name != "deleted" and name != "a folder":
                continue  # there is nothing to change in an empty file
            damaged(file, content)
            step, notes = newest(folder)
            assert step == 9, (file, name)
            (note,) = notes
            assert note.startswith("checkpoint 12 is passed over: ")
            # A digit of a hash in the manifest may be what changed: then it is that file's.
            assert file == manifest or str(file.relative_to(folder)) in note
            if file.is_dir():
                file.rmdir()
            file.write_bytes(content)
            cases += 1
    assert cases > 7 * 10
    assert newest(folder) == (12, [])


def test_every_bit_of_the_manifest_counts(run):
    manifest = run / "checkpoints/_integrity/12.json"
    content = bytearray(manifest.read_bytes())
    for position in range(0, len(content), 37):
        for bit in range(8):
            content[position] ^= 1 << bit
            manifest.write_bytes(content)
            assert damage(run / "checkpoints", 12), (position, bit)
            content[position] ^= 1 << bit


@pytest.mark.parametrize("what", ["the manifest", "a file", "the checkpoint", "all of it"])
def test_a_run_goes_on_over_what_is_of_another_kind(run, what):
    """A folder where a file should be, and the other way round."""
    folder = run / "checkpoints"
    manifest, checkpoint = folder / "_integrity/12.json", folder / "12"
    if what in ("the manifest", "all of it"):
        replace_by_a_folder(manifest, b"")
    if what == "a file":
        replace_by_a_folder(checkpoint / "params/_METADATA", b"")
    if what in ("the checkpoint", "all of it"):
        shutil.rmtree(checkpoint)
        checkpoint.write_text("")
    train(tiny.on_one_device(), run)
    assert newest(folder) == (12, [])
    assert tiny.losses(run) == tiny.losses(tiny.finished_run())


def test_missing_and_torn_files_are_found(run):
    folder = run / "checkpoints"
    file = folder / "12/params/_METADATA"
    content = file.read_bytes()
    file.write_bytes(content[:-10])
    size = len(content)
    assert damage(folder, 12) == f"12/params/_METADATA has {size - 10} bytes instead of {size}"
    file.unlink()
    assert damage(folder, 12) == "12/params/_METADATA is missing"
    shutil.rmtree(folder / "12")
    assert "is missing" in damage(folder, 12)
    assert newest(folder)[0] == 9


@pytest.mark.parametrize(
    ("manifest", "reason"),
    [
        (None, "its save was not completed (no manifest)"),
        ('{"params/_METADATA": [12', "its manifest is damaged"),
        ('{"params/_METADATA": 12}', "its manifest is damaged"),
        ("[]", "its manifest is empty"),
        ("{}", "its manifest is empty"),
        ('{"params/_METADATA": [1, "a", 3]}', "its manifest is damaged"),
        ('{"../../config.json": [1, "a"]}', "its manifest is damaged"),
        ('{"/etc/hostname": [1, "a"]}', "its manifest is damaged"),
    ],
)
def test_a_checkpoint_without_a_good_manifest_does_not_count(run, manifest, reason):
    folder = run / "checkpoints"
    path = folder / "_integrity/12.json"
    path.unlink() if manifest is None else path.write_text(manifest)
    assert newest(folder) == (9, [f"checkpoint 12 is passed over: {reason}"])


def test_nothing_saved_is_no_state_but_all_damaged_is_an_error(run, tmp_path):
    folder = run / "checkpoints"
    assert newest(tmp_path / "nothing") == (-1, [])
    for step in (9, 12):
        (folder / str(step) / "params/_METADATA").unlink()
    with pytest.raises(UserError, match=r"no checkpoint is whole: checkpoint 12 .*checkpoint 9 "):
        newest(folder)
    for step in (9, 12):
        replace_by_a_folder(folder / f"_integrity/{step}.json", b"")
    with pytest.raises(UserError, match=r"12 is passed over: its manifest cannot be read"):
        newest(folder)
    shutil.rmtree(folder / "_integrity")  # as if no save had ever been completed
    step, notes = newest(folder)
    assert step == -1
    assert len(notes) == 2
    with pytest.raises(UserError, match=r"holds no checkpoint .*12 is passed over"):
        load_params(run)


def test_the_newest_stay_and_an_unsealed_one_does_not_count(tmp_path, monkeypatch):
    state = odd_state()
    checkpoints = Checkpoints(tmp_path, keep=2)
    folder = tmp_path / "checkpoints"
    for step in (1, 2, 3):
        checkpoints.save(state, step, {})
    checkpoints.wait()
    assert steps(folder) == [3, 2]
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "seal", lambda *_: None)  # the process ended just before
        checkpoints.save(state, 4, {})
        checkpoints.wait()
    assert steps(folder) == [4, 3, 2]
    checkpoints.save(state, 4, {})  # the same step, after a resume
    checkpoints.wait()
    assert steps(folder) == [4, 3]
    assert newest(folder) == (4, [])
    assert sorted(p.name for p in folder.iterdir()) == ["3", "4", "_integrity"]


def test_a_damaged_one_does_not_count_among_the_newest(run):
    folder = run / "checkpoints"
    (folder / "12/params/_METADATA").unlink()
    checkpoints = Checkpoints(run, keep=2)
    state, step, _ = checkpoints.restore(
        Experiment.from_config(tiny.on_one_device()).abstract_state()
    )
    assert step == 9
    checkpoints.save(state, 14, {})
    checkpoints.wait()
    assert newest(folder) == (14, [])
    shutil.rmtree(folder / "14")
    assert newest(folder)[0] == 9


def test_what_an_unfinished_save_left_is_removed(tmp_path):
    left = tmp_path / "checkpoints" / "3.orbax-checkpoint-tmp"
    left.mkdir(parents=True)
    Checkpoints(tmp_path)
    assert not left.exists()


def test_a_failed_save_is_one_line(tmp_path, monkeypatch):
    checkpoints = Checkpoints(tmp_path)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint, "seal", full)
    checkpoints.save(odd_state(), 1, {})
    with pytest.raises(UserError, match="cannot write a checkpoint: No space left on device"):
        checkpoints.wait()
    checkpoints.wait()  # said once


def test_restores_onto_another_mesh(run):
    config = tiny.on_one_device()
    one, *_ = Checkpoints(run).restore(Experiment.from_config(config).abstract_state())
    config.mesh.update(data=2, fsdp=2, tensor=2)
    like = Experiment.from_config(config).abstract_state()
    many, step, _ = Checkpoints(run).restore(like)
    assert step == 12
    assert_same(one, many)
    jax.tree.map(lambda x, s: np.testing.assert_equal(x.sharding, s.sharding), many, like)
    assert len(many.params["mixer"]["kernel"].sharding.device_set) == 8
    assert many.params["mixer"]["kernel"].addressable_shards[0].data.shape == (4, 8)


def test_a_state_of_another_shape_is_one_line(run):
    config = tiny.on_one_device()
    like = Experiment.from_config(config).abstract_state()
    wrong = jax.ShapeDtypeStruct((8, 4), jnp.float32, sharding=like.step.sharding)
    with pytest.raises(
        UserError, match=r"12: does not fit .*: mixer/kernel is \(8, 8\), not \(8, 4"
    ):
        Checkpoints(run).restore(like.replace(params={"mixer": {"kernel": wrong}}))
    with pytest.raises(UserError, match="12: does not fit this config: has mixer/kernel, which"):
        Checkpoints(run).restore(like.replace(params={"net": like.params["mixer"]}))
    with pytest.raises(UserError, match="12: does not fit this config: ") as error:
        Checkpoints(run).restore(like.replace(memory={"other": {"mean": wrong}}))
    assert "\n" not in str(error.value)


def test_a_certain_step_can_be_loaded(run):
    assert load_params(run, 9)[0] == 9
    older, newer = (tiny.weights(load_params(run, n)[1]) for n in (9, 12))
    assert np.abs(older - newer).max() > 0
    with pytest.raises(
        UserError, match="checkpoint 3: there is no such checkpoint; there are: 12, 9"
    ):
        load_params(run, 3)
