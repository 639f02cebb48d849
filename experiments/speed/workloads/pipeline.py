"""Input: batches of texts, pictures and voices by our streams and by PyTorch's DataLoader.

Both decode, augment and tokenise with the functions of taichu_jax/data and give the same batches; what
differs is what calls them: the project's sampler, batch filler and Grain, or DataLoader's sampler,
workers and collation. Neither reads ahead, so that each works in its own turn only: all is done by one
thread of one process.
"""

from __future__ import annotations

import dataclasses
import io
import pathlib

import numpy as np

from experiments.speed.workloads.base import SEED, STREAM, Workload

LANGUAGE = "en"
PICTURE_SIDE = 256  # pixels of an encoded picture
RATE = 16_000


class Encoded:
    """A source (taichu_jax/data/parts.py) of `count` made-up examples that are decoded whenever asked."""

    def __init__(self, kind: str, count: int):
        from taichu_jax.data.records import Entry

        rng = np.random.default_rng(SEED)
        languages = (LANGUAGE,) if kind == "audio" else ()
        self.entries = tuple(
            Entry(f"{kind}{i}", i, 0, (), languages, kind == "image") for i in range(count)
        )
        make = {"image": _png, "audio": _flac}[kind]
        self._files = [make(rng) for _ in range(count)]

    def texts(self, row):
        return {}

    def canvas(self, row, side):
        from taichu_jax.data import images

        return images.canvas(images.decode(self._files[row]), side)

    def wave(self, row, lang, trim=False):
        from taichu_jax.data import audio

        return np.round(audio.decode(self._files[row]) * 32767).astype(np.int16)

    def report(self, row, damage):
        raise damage


def _png(rng: np.random.Generator) -> bytes:
    """A smooth picture with noise, of the size that prepared pictures have."""
    import PIL.Image

    coarse = rng.integers(0, 256, (8, 8, 3), np.uint8)
    smooth = PIL.Image.fromarray(coarse).resize((PICTURE_SIDE, PICTURE_SIDE))
    noise = rng.integers(0, 8, (PICTURE_SIDE, PICTURE_SIDE, 3), np.uint8)
    buffer = io.BytesIO()
    PIL.Image.fromarray(np.minimum(np.asarray(smooth), 247) + noise).save(buffer, "PNG")
    return buffer.getvalue()


def _flac(rng: np.random.Generator) -> bytes:
    """Two seconds of coloured noise."""
    from taichu_jax.data import audio

    wave = np.cumsum(rng.standard_normal(2 * RATE).astype(np.float32))
    wave -= np.linspace(wave[0], wave[-1], len(wave), dtype=np.float32)
    return audio.encode_flac(0.5 * wave / np.abs(wave).max())


def corpus(folder: pathlib.Path, lines: int) -> pathlib.Path:
    """A text file of made-up sentences."""
    rng = np.random.default_rng(SEED)
    letters = np.array(list("abcdefghijklmnoprstuvz"))
    words = ["".join(rng.choice(letters, rng.integers(2, 9))) for _ in range(200)]
    path = folder / "corpus.txt"
    text = [" ".join(rng.choice(words, rng.integers(5, 20))) for _ in range(lines)]
    path.write_text("\n".join(text) + "\n", "utf8")
    return path


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pipeline(Workload):
    """Batches of one kind, on the CPU whatever trains.

    Attributes:
      kind: 'text', 'image' or 'audio'.
    """

    kind: str

    def units(self, sizes):
        return sizes["batch"] * sizes["batches"]

    def modes(self, torch_modes):
        return ("eager",)

    def same_steps(self, device):
        return True

    def ours(self, sizes, folder, device):
        return OurBatches(self, sizes, folder)

    def theirs(self, sizes, folder, device, mode):
        from experiments.speed.theirs_pipeline import TheirBatches

        return TheirBatches(self, sizes, folder)

    def stream(self, sizes, folder):
        """(a stream that decodes at every access, its tokenizer)."""
        from taichu_jax.data.sentences import Sentences
        from taichu_jax.data.streams import Pictures, Recordings
        from taichu_jax.data.tokenizer import BPETokenizer

        folder.mkdir(parents=True, exist_ok=True)
        rows, examples = sizes["batch"], sizes["examples"]
        if self.kind == "text":
            path = corpus(folder, examples)
            # dropout, because without it a text is encoded once and remembered
            tokenizer = BPETokenizer(vocab_size=300, corpus=str(path), dropout=0.1)
            return Sentences(batch_size=rows, path=str(path)), tokenizer.load(folder)
        kind = {"image": Pictures, "audio": Recordings}[self.kind]
        source = Encoded(self.kind, examples)

        class MadeUp(kind):
            def source(self, data_dir):
                return source

        more = {"image_size": 64} if self.kind == "image" else {"seconds": 2.0}
        return MadeUp(batch_size=rows, **more), None


class Batches:
    """What both sides share: a step is some batches, and its 'loss' a mean of all that is in them."""

    def __init__(self, sizes, make):
        self._count, self._batches, self._number = sizes["batches"], make(), 0

    def ready(self):
        from experiments.speed.child import forget_peak

        forget_peak()
        return {"versions": self.versions()}

    def versions(self):
        raise NotImplementedError

    def first_loss(self):
        return self.step()["loss"]

    def step(self):
        import time

        start = time.perf_counter()
        found = [next(self._batches) for _ in range(self._count)]
        seconds = time.perf_counter() - start
        means = [np.asarray(x, np.float64).mean() for batch in found for x in batch.values()]
        self._number += 1
        return {"seconds": seconds, "loss": float(np.sum(means)), "number": self._number - 1}

    def memory(self):
        from experiments.speed.child import resident_peak

        return resident_peak()

    def peak(self):
        return 0.0


class OurBatches(Batches):
    """The loader of the training loop, without threads and workers."""

    def __init__(self, workload, sizes, folder):
        from taichu_jax.data.loader import Loader

        def make():
            stream, tokenizer = workload.stream(sizes, folder)
            loader = Loader({STREAM: stream}, folder, tokenizer, seed=SEED, threads=0, ahead=0)
            return (batch[STREAM] for batch in loader)

        super().__init__(sizes, make)

    def versions(self):
        import grain

        return {"grain": getattr(grain, "__version__", "unknown"), "numpy": np.__version__}


_SIZES = {"tiny": {"batch": 4, "batches": 1, "examples": 8}}

PIPELINE = tuple(
    Pipeline(
        name=f"data_{kind}",
        label=f"input, {label}",
        unit=unit,
        kind=kind,
        **_SIZES,
        base={"batch": 64, "batches": batches, "examples": 256},
    )
    for kind, label, unit, batches in (
        ("text", "sentences to BPE ids", "texts", 8),
        ("image", "PNG of 256 to 64 pixels, augmented", "images", 1),
        ("audio", "FLAC of 2 s to log-mel, augmented", "recordings", 1),
    )
)
