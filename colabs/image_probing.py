# %% [markdown]
# # Pictures: masked autoencoding and probes
#
# Trains a masked autoencoder (MAE, arXiv 2111.06377) on small pictures, looks at what it draws into
# hidden patches, and asks what can be read off every layer of its encoder: the category of a thing,
# where it is, and which pictures are alike. Beside every number stand chance, the raw pixels and
# the same network without training.
#
# First the set-up: in a checkout of the program it does nothing.

# %%
from set_up import ROOT

# %%
import pathlib

import numpy as np
from colabs import plots
from rich.console import Console

from taichu_jax.config import load, override
from taichu_jax.data.builder import STAMPS
from taichu_jax.evals.evaluate import FOLDER, evaluate
from taichu_jax.probing import baselines, collect
from taichu_jax.probing.examples import Prepared
from taichu_jax.probing.open import of_run
from taichu_jax.probing.study import plan, probe
from taichu_jax.probing.tables import tables
from taichu_jax.probing.tasks.retrieval import cosine
from taichu_jax.training import runtime
from taichu_jax.training.loop import train
from taichu_jax.training.run import Run

runtime.start()
console = Console(width=110)

# %% [markdown]
# ## Parameters
#
# By default everything is small: 96 pictures that come with the program, and a few steps. `FULL =
# True` fetches all 961 (161 MB, where there is an `apt-get`) and trains as the config says; take a
# GPU for it. `CHANGES` is what would be written after `--config.` on the command line. A folder
# holds one run: after changing something, name another `WORK`.

# %% tags=["parameters"]
FULL = False
CONFIG = "configs/vision/mae_stamps.py"
WORK = "runs/colabs/image_probing_full" if FULL else "runs/colabs/image_probing"
HERE = {"data.workers": "0"}  # threads decode; processes would run this file again
SMALL = {
    "data.dir": "runs/colabs/data",
    "data.source": str(ROOT / "sample"),
    "steps": "150",
    "optimizer.learning_rate.steps": "150",
    "optimizer.learning_rate.warmup": "15",
    "streams.pictures.batch_size": "32",
    "log_every": "30",
}
CHANGES = HERE if FULL else HERE | SMALL
TASKS = ["category", "segmentation", "retrieval"]
LIMIT = 1000  # training pictures, and test pictures, that a probe sees at most
SHOWN = 6  # pictures

# %% [markdown]
# ## Training
#
# A config names streams of data, networks and objectives; `train` does the rest, as `python
# launch/train.py --config ...` would. Three quarters of the patches are hidden from the encoder.

# %%
config = override(load(CONFIG), CHANGES)
print(config.objectives)
run_dir = train(config, pathlib.Path(WORK) / "mae")
plots.losses(run_dir)

# %% [markdown]
# ## What it draws
#
# The config's evaluation `pictures` hides patches of held-out pictures and fills them in. The model
# predicts every patch with mean 0 and variance 1, so it is given the mean and the deviation of each
# hidden patch; the guess to beat is the mean alone.

# %%
run = Run.open(run_dir)
entry = evaluate(run, only=("pictures",))["evaluations"]["pictures"]
drawn = entry["result"]
print(
    f"mean squared error of hidden patches {drawn['error']:.4f}, of their means {drawn['guess']:.4f}"
)
folder = run.path / FOLDER / "pictures"
columns = ["input", "shown", "drawn"]
plots.pictures(
    [[folder / card[name] for name in columns] for card in drawn["examples"][:SHOWN]], columns
)

# %% [markdown]
# ## What each layer knows
#
# `of_run` finds the encoders of a run, `plan` the tasks that the data have labels for, `probe`
# computes them: the layer is chosen on a fifth of the training pictures, the test pictures are
# asked once. This is `python launch/probe.py --run ... --task ...`, which also writes a page to
# look at.

# %%
(encoder,) = of_run(run, "image")
examples = Prepared(run.config.data.dir, STAMPS, "image")
work = plan([encoder], lambda modality: examples, TASKS)
results = probe(
    work, run.path / "probe", {"run": run.config.name}, limit=LIMIT, scratch_steps=0, seed=0
)
for table in tables(results):
    console.print(table)

# %% [markdown]
# How well a linear map reads it off every layer, on the pictures held out for choosing one; dashed
# what needs no training.

# %%
plots.layers(results["networks"]["image"]["tasks"], "image")

# %% [markdown]
# ## Neighbours
#
# Test pictures, and the training pictures whose mean states in the last layer are the nearest; then
# the same with the pixels in place of states.

# %%
train_rows = [i for i, row in enumerate(examples.rows) if row.split == "train"][:LIMIT]
asked = [i for i, row in enumerate(examples.rows) if row.split == "test"][:SHOWN]
heads = ["asked", *(f"nearest {k}" for k in range(1, 6))]
pixels = baselines.raw(encoder, examples, train_rows)
for system in (encoder, pixels):
    states, queries = (collect.pooled(system, examples, rows)[-1] for rows in (train_rows, asked))
    nearest = np.argsort(-cosine(queries, states), axis=1, kind="stable")[:, :5]
    (shown,) = collect.inputs(encoder, examples, asked)
    (found,) = collect.inputs(encoder, examples, [train_rows[j] for j in nearest.reshape(-1)])
    found = found.reshape(*nearest.shape, *found.shape[1:])
    print(system.name)
    plots.pictures([[a, *b] for a, b in zip(shown, found, strict=True)], heads, side=0.9)

# %% [markdown]
# ## Patches
#
# The three main directions of the patches' last states over a few pictures, as red, green and blue:
# patches of the same colour are alike to the encoder. The states come from the same pure function
# that the probes use, `encoder.hidden_states(params, inputs)`.

# %%
(images,) = collect.inputs(encoder, examples, asked)
states = np.asarray(encoder.hidden_states(encoder.params, (images,)).tokens, np.float64)
side = images.shape[1] // baselines.patch_of(encoder)
states = states[:, -(side**2) :]  # without the class token
flat = states.reshape(-1, states.shape[-1]) - states.mean((0, 1))
directions = np.linalg.svd(flat, full_matrices=False)[2][:3]
colours = flat @ directions.T
colours = (colours - colours.min(0)) / np.ptp(colours, 0)
plots.pictures(
    [list(images), list(colours.reshape(len(images), side, side, 3))], [""] * len(images)
)

# %% [markdown]
# ## Further
#
# - Your own pictures, a folder of classes: `python launch/probe.py --run RUN --data FOLDER --task label`.
# - A published ViT, MAE, BEiT or DINO: `python launch/probe.py --hf FOLDER --task category --out OUT`.
# - Another method: `CONFIG = "configs/vision/moco_stamps.py"` (its encoder is probed in the same way; it
#   draws nothing).
