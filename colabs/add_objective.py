# %% [markdown]
# # Adding an objective
#
# A method is one small file: a loss over a stream of data that calls networks by name. Nothing else
# changes, neither the step nor the loop. Here the README's worked example, Barlow Twins (arXiv
# 2103.03230), is taken from its page, tested, broken on purpose, trained, and mixed with another
# method.
#
# First the set-up: in a checkout of the program it does nothing.

# %%
from set_up import ROOT

# %%
import dataclasses
import importlib
import inspect
import os
import pathlib
import shutil
import sys

import jax
import numpy as np
from IPython.display import Code, display
from matplotlib import pyplot

# %% [markdown]
# ## Parameters
#
# By default everything is small: 96 pictures that come with the program and a few steps. `FULL =
# True` fetches all 961 (161 MB, where there is an `apt-get`) and trains as the config says; take a
# GPU for it. `CHANGES` is what would be written after `--config.` on the command line. A folder
# holds one run: after changing something, name another `WORK`.

# %% tags=["parameters"]
FULL = False
WORK = "runs/colabs/add_objective_full" if FULL else "runs/colabs/add_objective"
HERE = {"data.workers": "0"}  # threads decode; processes would run this file again
SMALL = {
    "data.dir": str(ROOT / "runs/colabs/data"),
    "data.source": str(ROOT / "sample"),
    "steps": "100",
    "optimizer.learning_rate.steps": "100",
    "optimizer.learning_rate.warmup": "10",
    "streams.views.batch_size": "32",
    "log_every": "10",
}
CHANGES = HERE | ({"data.dir": str(ROOT / "data")} if FULL else SMALL)
MIXED_STEPS = "20"

# %% [markdown]
# ## A place to write
#
# The example's files go into a copy of the program, so that this checkout stays as it is. In your
# own work you write into the checkout itself.

# %%
copy = pathlib.Path(WORK).resolve() / "checkout"
for name in ("taichu_jax", "configs", "tests"):
    shutil.rmtree(copy / name, ignore_errors=True)
    shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
shutil.copy(ROOT / "README.md", copy)
os.chdir(copy)
sys.path.insert(0, str(copy))

from colabs import plots

from taichu_jax.config import load, override, spec
from taichu_jax.evals.features import jitted
from taichu_jax.models.layers import masked_mean
from taichu_jax.models.vision import MAEDecoder
from taichu_jax.objectives.base import Loss, Objective
from taichu_jax.objectives.vision.mae import MaskedAutoencoder
from taichu_jax.training import runtime
from taichu_jax.training.loop import train
from taichu_jax.training.run import Run

runtime.start()

# %% [markdown]
# ## What an objective is
#
# A frozen dataclass with one method. `nets("image", pixels)` calls a network with the weights that
# are trained, `nets.teacher(...)` and `nets.frozen(...)` with others; `batch` is the stream's,
# `memory` what the loss carries from step to step, `rng` its own randomness.

# %%
for thing in (Objective, Loss):
    display(Code(inspect.getsource(thing), language="python"))

# %% [markdown]
# ## The example's four files
#
# The method, a config, a case for the contract tests, and a test.

# %%
from tests.docs.test_readme import example

METHOD, CONFIG, CASE, TEST = example()
for path, text in example().items():
    (copy / path).write_text(text, "utf8")
    print(path)
display(Code((copy / METHOD).read_text("utf8"), language="python"))

# %% [markdown]
# ## The loss is the paper's formula
#
# The test computes it again with loops, from networks that return what they are told, and compares.
# Here is the reference, and the test run.

# %%
sys.path.insert(0, str((copy / TEST).parent))
method = importlib.import_module(METHOD.removesuffix(".py").replace("/", "."))
test = importlib.import_module(pathlib.Path(TEST).stem)
display(Code(inspect.getsource(test.reference), language="python"))


def check(source):
    """Runs the test with this text as the method's file."""
    (copy / METHOD).write_text(source, "utf8")
    importlib.reload(method)
    importlib.reload(test)
    test.test_loss_is_the_formula(weight=0.005)


right = (copy / METHOD).read_text("utf8")
check(right)
print("the loss is the formula")

# %% [markdown]
# A test that cannot fail is worth nothing, so the code is broken on purpose: features of the two
# views are pulled to a correlation of 0 instead of 1, and the test must say so.

# %%
wrong = right.replace("(1 - correlation) * own", "correlation * own")
try:
    check(wrong)
except AssertionError as error:
    print("the test fails:", str(error).strip())
else:
    raise RuntimeError("the test does not see a broken loss")
check(right)

# %% [markdown]
# ## The contracts
#
# `tests/test_contracts.py` holds every case to the same promises: finite in float32 and bfloat16,
# no matter what is in padding or absent pictures, the same on one device and on eight, alone and
# mixed. In a checkout:
#
# ```sh
# python -m pytest tests/objectives/test_barlow_twins.py
# python -m pytest tests/test_contracts.py -k barlow_twins
# ```
#
# Two of them by hand, with the case's small networks: a gradient reaches every network, and
# pictures that are absent do not matter.

# %%
from tests import case as cases

NAME = pathlib.Path(CASE).stem
batch = dict(cases.load(NAME).batch)
_, _, params, teachers, _ = cases.built(NAME)
(value, _), (gradients, _) = cases.gradients(NAME)(params, teachers, batch)
for network, tree in gradients.items():
    norm = np.sqrt(sum(float(np.square(x).sum()) for x in jax.tree.leaves(tree)))
    print(f"gradient of {network}: {norm:.3g}")
absent = ~batch["has_image"]
batch["image"] = np.where(absent[:, None, None, None], 0.5, batch["image"])
(other, _), _ = cases.gradients(NAME)(params, teachers, batch)
print(f"loss {value:.6f}, with another absent picture {other:.6f}")

# %% [markdown]
# ## Training
#
# The config names a stream of two views of each picture, two networks and the loss.

# %%
display(Code((copy / CONFIG).read_text("utf8"), language="python"))
config = override(load(CONFIG), CHANGES)
run_dir = train(config, copy.parent / "barlow_twins")
plots.metrics(run_dir, [f"barlow_twins/{name}" for name in ("loss", "invariance", "redundancy")])

# %% [markdown]
# What the loss is about: the correlations between the features of two views, before training and
# after it. The diagonal should be 1, the rest 0; few pictures have few independent features.

# %%
run = Run.open(run_dir)
stream = run.experiment.streams["views"]
views = stream.batches(run.config.data.dir, run.tokenizer, seed=1)[0]


def project(nets, images):
    states = nets("image", images)
    return nets("image_projection", masked_mean(states.tokens, states.mask))


start = dataclasses.replace(run, params=run.experiment.init().params)
_, axes = pyplot.subplots(1, 2, figsize=(7, 3.2), layout="constrained")
for title, which, place in zip(("before", "after"), (start, run), axes, strict=True):
    compute = jitted(which, project)
    features = [np.asarray(compute(views[name])) for name in ("image", "image2")]
    count = features[0].shape[1]
    correlations = np.corrcoef(*features, rowvar=False)[:count, count:]
    seen = place.imshow(correlations, vmin=-1, vmax=1, cmap="RdBu")
    place.set_title(f"{title}, diagonal {np.diag(correlations).mean():.2f}")
pyplot.colorbar(seen, ax=axes)
pyplot.show()

# %% [markdown]
# ## Mixed with another method
#
# A run may have any objectives on the same networks: here a masked autoencoder reads the first
# view. The parameters come from the networks' names and the randomness from the step and the
# objective's name, so in its first step Barlow Twins computes the same as alone.

# %%
mixed = override(load(CONFIG), CHANGES | {"steps": MIXED_STEPS, "log_every": "1"})
image = mixed.networks.image
patches = (mixed.streams.views.image_size // image.patch) ** 2
mixed.networks.image_decoder = spec(
    MAEDecoder, width=64, depth=1, patch=image.patch, patches=patches
)
mixed.objectives.mae = spec(MaskedAutoencoder, source="views", patch=image.patch, weight=0.5)
mixed_dir = train(mixed, copy.parent / "mixed")
for folder in (run_dir, mixed_dir):
    first = plots.rows(folder)[0]
    print(f"{folder.name}, first step: Barlow Twins {first['barlow_twins/loss']:.5g}")
plots.metrics(mixed_dir, ["barlow_twins/loss", "mae/loss"])

# %% [markdown]
# ## Yours
#
# In your checkout: the file, with the paper, the equation, the fields and networks in its docstring
# and a paragraph `Checked against: ...`; a config, a case and a test; then `UPDATE_GOLDEN=1 python
# -m pytest tests/configs -k NAME` and `python docs/generate.py`. `CONTRIBUTING.md` has the whole
# list.
