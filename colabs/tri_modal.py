# %% [markdown]
# # Pictures, words and voices: retrieval and generation
#
# Trains a tri-modal model (OPT, arXiv 2107.00249) that understands and makes all three: one encoder
# for each, a cross-modal encoder over whatever is there, and decoders that write words, draw
# pictures and speak. Then asks it to find one by another, and to make one from another.
#
# First the set-up: in a checkout of the program it does nothing.

# %%
from set_up import ROOT

# %%
import dataclasses
import pathlib

from colabs import plots
from IPython.display import Audio, Image, display
from matplotlib import pyplot
from rich.console import Console

from taichu_jax.config import load, override
from taichu_jax.data.audio import RATE
from taichu_jax.evals.evaluate import FOLDER, evaluate
from taichu_jax.evals.features import collect
from taichu_jax.evals.retrieval import compare, complete
from taichu_jax.evals.tables import tables
from taichu_jax.inference.generate import Generator, Options
from taichu_jax.inference.inputs import Given
from taichu_jax.objectives.multimodal.encoders import Encoders
from taichu_jax.training import runtime
from taichu_jax.training.loop import train
from taichu_jax.training.run import Run

runtime.start()
console = Console(width=110)

# %% [markdown]
# ## Parameters
#
# By default everything is small: 96 pictures with their names and about 580 recordings, which come
# with the program, and a few steps, so that every cell can be seen at work; what
# it draws and says is noise. `FULL = True` fetches all 961 pictures and 6,400 recordings (161 MB,
# where there is an `apt-get`) and trains the three runs as their configs say; take a GPU for it.
# Each of the `CHANGES` is what would be written after `--config.` on the command line. A folder
# holds one run: after changing something, name another `WORK`.

# %% tags=["parameters"]
FULL = False
WORK = "runs/colabs/tri_modal_full" if FULL else "runs/colabs/tri_modal"
HERE = {"data.workers": "0"}  # threads decode; processes would run this file again
SMALL = {
    "data.dir": "runs/colabs/data",
    "data.source": str(ROOT / "sample"),
    "steps": "60",
    "optimizer.learning_rate.steps": "60",
    "optimizer.learning_rate.warmup": "6",
    "log_every": "20",
}
PICTURE_CODES = HERE if FULL else HERE | SMALL | {"streams.pictures.batch_size": "16"}
VOICE_CODES = HERE if FULL else HERE | SMALL | {"streams.voices.batch_size": "8"}
MODEL = HERE if FULL else HERE | SMALL | {"streams.stamps.batch_size": "16"}
LEFT_OUT = [] if FULL else ["token", "sample"]  # objectives of the model
LANGUAGE = "fr"
SAMPLES = 4  # of everything that is drawn

# %% [markdown]
# ## Codes for pictures and voices
#
# Pictures are drawn, and voices spoken, as codes: small integers that a tokeniser has learnt to
# turn back into pixels and sound. The tokenisers are runs of their own, and stay as they are in the
# model.

# %%
folder = pathlib.Path(WORK)
pictures = train(override(load("configs/vision/vqvae_stamps.py"), PICTURE_CODES), folder / "vqvae")
voices = train(override(load("configs/speech/mel_codec_stamps.py"), VOICE_CODES), folder / "codec")
plots.losses(pictures, voices)

# %% [markdown]
# ## The model
#
# Several objectives on the same networks: contrastive alignment pulls the three modalities of one
# thing together, the others hide a part, or a whole modality, and have it written, drawn or spoken
# again from the rest. `taichu_stamps.py` names the tokenisers' runs after a colon.

# %%
config = load(f"configs/multimodal/taichu_stamps.py:{pictures},{voices}")
for name in LEFT_OUT:
    del config.objectives[name]
config = override(config, MODEL)
print("objectives:", ", ".join(config.objectives))
run_dir = train(config, folder / "model")
plots.losses(run_dir)

# %% [markdown]
# ## Retrieval
#
# The config's evaluation `retrieval`: each of the held-out things is asked for by its picture, its
# words, its voice or two of them together, among all others of the same language. `test` has things
# never seen in training, `test_recordings` new voices for known things; chance is exact and stands
# beside each number.

# %%
run = Run.open(run_dir)
entry = evaluate(run, only=("retrieval",))["evaluations"]["retrieval"]
for table in tables("retrieval", entry):
    console.print(table)

# %% [markdown]
# A few questions with the best answers, the right ones framed in green.

# %%
media = run.path / FOLDER / "retrieval"
shown = [e for e in entry["result"]["examples"] if e["direction"] == "audio->image"][:3]
for example in shown:
    language, rank = example["language"], example["rank"]
    print(f"{language}, one of {example['candidates']}; the right picture is at rank {rank:g}")
    display(Audio(filename=str(media / example["query"]["audio"])))
    _, axes = pyplot.subplots(1, len(example["found"]), figsize=(7, 1.6), layout="constrained")
    for card, place in zip(example["found"], axes, strict=True):
        place.imshow(pyplot.imread(media / card["image"]))
        place.set(xticks=[], yticks=[])
        place.set_title(f"{card['score']:.2f}", fontsize=8)
        place.spines[:].set(color="green" if card["right"] else "lightgrey", linewidth=3)
    pyplot.show()

# %% [markdown]
# The same by hand, as the evaluation does it: embed every held-out thing of one language, and
# compare all with all. A good model has a bright diagonal.

# %%
encoders = Encoders()
stream = run.experiment.evaluations["retrieval"].stream


def embed(nets, batch):
    encoded = encoders.encode(nets, batch)
    return {name: encoders.embed(nets, name, x) for name, x in encoded.items()}


fields = ("lang", "concept", "text", "has_text", "has_image", "has_audio")
held_out = dataclasses.replace(stream, split="test", languages=(LANGUAGE,))
labels, embeddings = collect(run, held_out, embed, fields=fields)
pairs = (("audio", "text"), ("image", "text"), ("audio", "image"))
_, axes = pyplot.subplots(1, len(pairs), figsize=(10, 3.2), layout="constrained")
for (query, target), place in zip(pairs, axes, strict=True):
    rows = complete(labels, LANGUAGE, (query, target))
    scores, _ = compare(labels, embeddings, rows, (query,), target)
    seen = place.imshow(scores)
    place.set(xlabel=target, ylabel=query, xticks=[], yticks=[])
    pyplot.colorbar(seen, ax=place)
pyplot.show()

# %% [markdown]
# ## Generation
#
# A picture, a sound and words, or any of them together, are read as one example; what is asked for
# is written, drawn and spoken. `python launch/generate.py --run ... --image ... --to
# text,image,audio` does the same and writes a page.

# %%
generator = Generator(run)
print("this run can make:", ", ".join(generator.can))
given = Given(
    image=ROOT / "sample/animals/birds/rooster.png",
    audio=ROOT / f"sample/animals/birds/rooster_desc_{LANGUAGE}.ogg",
    language=LANGUAGE,
)
display(Image(given.image, width=120), Audio(given.sound, rate=RATE))

# %% [markdown]
# From the picture and the voice: words, by greedy search and then drawn; `log_p` is the natural
# logarithm of a text's probability.

# %%
for options in (Options(), Options(samples=SAMPLES)):
    for line in generator.make(given, options).texts:
        print(f"{line.log_p:9.2f}  {line.text}")

# %% [markdown]
# From the voice alone, pictures; each sample has its own draws. Beside them, the codes of the
# first.

# %%
heard = dataclasses.replace(given, image=None)
drawn = generator.make(heard, Options(kinds=("image",), samples=SAMPLES)).pictures
plots.pictures(
    [[picture.pixels for picture in drawn]], [f"sample {i}" for i in range(SAMPLES)], 1.6
)
print(drawn[0].codes)

# %% [markdown]
# From the picture alone, voices. The model speaks codes, the codec makes log-mel frames of them,
# and Griffin-Lim makes sound of these; a trained vocoder sounds better (`--vocoder
# runs/hifi_gan_stamps`).

# %%
seen = dataclasses.replace(given, audio=None)
spoken = generator.make(seen, Options(kinds=("audio",), samples=SAMPLES)).sounds
_, axes = pyplot.subplots(1, SAMPLES, figsize=(3.2 * SAMPLES, 2.2), layout="constrained")
for sound, place in zip(spoken, axes, strict=True):
    plots.spectrogram(place, sound.mel)
    display(Audio(sound.wave, rate=RATE))
pyplot.show()

# %% [markdown]
# ## Further
#
# - Everything that the config evaluates, and a report: `python launch/evaluate.py --run RUN`.
# - How good the drawings and voices are, judged by another model: `taichu_jax/evals/generation.py`.
# - What came out of longer training: the README's first table.
