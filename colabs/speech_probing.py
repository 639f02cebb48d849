# %% [markdown]
# # Speech: what the layers of an encoder know
#
# Trains an encoder of speech without labels, then asks of every layer what can be read off it:
# which language is spoken, which word is said, what is meant. Beside every number stand chance, the
# log-mel spectrogram and the same network without training: a probe's number means little alone.
#
# First the set-up: in a checkout of the program it does nothing.

# %%
from set_up import ROOT

# %%
import pathlib

import numpy as np
from colabs import plots
from IPython.display import Audio, display
from matplotlib import pyplot
from rich.console import Console

from taichu_jax.config import build, load, override
from taichu_jax.data.audio import RATE, log_mel
from taichu_jax.data.builder import STAMPS
from taichu_jax.probing import collect
from taichu_jax.probing.encoder import every_layer
from taichu_jax.probing.examples import Prepared, thinned
from taichu_jax.probing.open import of_run
from taichu_jax.probing.study import plan, probe
from taichu_jax.probing.tables import tables
from taichu_jax.probing.tasks.retrieval import cosine
from taichu_jax.training import runtime
from taichu_jax.training.datasets import prepare_data
from taichu_jax.training.loop import train
from taichu_jax.training.run import Run

runtime.start()
console = Console(width=110)

# %% [markdown]
# ## Parameters
#
# By default everything is small: 96 pictures with about 580 recordings of their names, which come
# with the program, and a few steps. `FULL = True` fetches all 6,400 recordings (161 MB, where there
# is an `apt-get`) and trains as the config says; take a GPU for it. `CHANGES` is what would be
# written after `--config.` on the command line. A folder holds one run: after changing something,
# name another `WORK`.

# %% tags=["parameters"]
FULL = False
CONFIG = "configs/speech/mockingjay_stamps.py"
WORK = "runs/colabs/speech_probing_full" if FULL else "runs/colabs/speech_probing"
HERE = {"data.workers": "0"}  # threads decode; processes would run this file again
SMALL = {
    "data.dir": "runs/colabs/data",
    "data.source": str(ROOT / "sample"),
    "steps": "150",
    "optimizer.learning_rate.steps": "150",
    "optimizer.learning_rate.warmup": "15",
    "streams.voices.batch_size": "16",
    "log_every": "30",
}
CHANGES = HERE if FULL else HERE | SMALL
TASKS = ["language", "keyword"]  # and, for longer: "category", "ctc"
LIMIT = 1000  # training recordings, and test recordings, that a probe hears at most
LISTENED = 3  # recordings to listen to

# %% [markdown]
# ## The recordings
#
# People who name things: one or two speakers for each language.

# %%
config = override(load(CONFIG), CHANGES)
prepare_data(build(config.streams), config.data)
examples = Prepared(config.data.dir, STAMPS, "speech")
heard = [i for i, row in enumerate(examples.rows) if row.split == "test"]
heard = thinned(heard, LISTENED)
_, axes = pyplot.subplots(1, LISTENED, figsize=(3.4 * LISTENED, 2.4), layout="constrained")
for i, place in zip(heard, axes, strict=True):
    wave = examples.wave(i)
    plots.spectrogram(place, log_mel(wave))
    place.set_title(f"{examples.rows[i].labels['language']}: {examples.text(i)}", fontsize=9)
    display(Audio(wave, rate=RATE))
pyplot.show()

# %% [markdown]
# ## Training
#
# Mockingjay (arXiv 1910.12638) hides spans of frames and draws them again. Any config of
# `configs/speech/` with an encoder called `speech` can take its place: contrastive
# (`wav2vec2_stamps.py`), predictive (`apc_stamps.py`), distilling (`data2vec_stamps.py`); give it
# its own `CHANGES`.

# %%
run_dir = train(config, pathlib.Path(WORK) / config.name)
plots.losses(run_dir)

# %% [markdown]
# ## Probes
#
# `of_run` finds the encoders of a run, `plan` the tasks that the data have labels for, `probe`
# computes them: the layer is chosen on a fifth of the training recordings, the test recordings are
# asked once. This is `python launch/probe.py --run ... --task ...`, which also writes a page to
# look at.

# %%
run = Run.open(run_dir)
(encoder,) = of_run(run, "speech")
print(f"{encoder.name}: layers {encoder.layer_names}, {encoder.shapes.rate:g} states a second")
work = plan([encoder], lambda modality: examples, TASKS)
results = probe(
    work, run.path / "probe", {"run": run.config.name}, limit=LIMIT, scratch_steps=0, seed=0
)
for table in tables(results):
    console.print(table)
for where, why in results["left_out"].items():
    print(f"{where} left out: {why}")

# %% [markdown]
# How well a linear map reads it off every layer, on the recordings held out for choosing one;
# dashed what needs no training.

# %%
plots.layers(results["networks"]["speech"]["tasks"], "speech")

# %% [markdown]
# ## Which moments are alike
#
# The cosine between the states of every two moments of one recording, with the recording's mean
# state taken away: where the input and the last layer see the same sound again. The states come
# from the same pure function that the probes use, `encoder.hidden_states(params, inputs)`.

# %%
arrays = collect.inputs(encoder, examples, heard[:1])
encoded = encoder.hidden_states(encoder.params, arrays)
real = np.asarray(encoded.mask[0])
layers = [np.asarray(x[0], np.float64)[real] for x in every_layer(encoded)]
chosen = [layers[0], layers[len(layers) // 2], layers[-1]]
names = [encoder.layer_names[k] for k in (0, len(layers) // 2, -1)]
_, axes = pyplot.subplots(1, 4, figsize=(13, 3), layout="constrained")
plots.spectrogram(axes[0], log_mel(examples.wave(heard[0])))
axes[0].set_title(examples.text(heard[0]), fontsize=10)
seconds = real.sum() / encoder.shapes.rate
for name, states, place in zip(names, chosen, axes[1:], strict=True):
    centred = states - states.mean(0)
    place.imshow(cosine(centred, centred), vmin=-1, vmax=1, extent=(0, seconds, seconds, 0))
    place.set_title(name, fontsize=10)
pyplot.show()
display(Audio(examples.wave(heard[0]), rate=RATE))

# %% [markdown]
# ## Further
#
# - Your own recordings with labels: `python launch/probe.py --run RUN --data FILE.csv --task COLUMN`.
# - A published wav2vec 2.0, HuBERT or Whisper: `python launch/probe.py --hf FOLDER --task all --out OUT`.
# - How 14 methods compare under one budget: `experiments/speech_ssl/README.md`.
