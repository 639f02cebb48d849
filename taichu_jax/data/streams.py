"""Streams over prepared pictures, words and voices. A config names one and sets its fields.

The batch of a step is a pure function of (data set, seed, step): the order is drawn for the global
batch, a row is augmented by its place in it, and a process makes the rows that its devices hold. So a
run resumes from its step number alone, on any number of processes.

Fields of every batch, B rows:
  concept int32   the same number for pictures of the same thing: such rows are not negatives
  category int32  index into the data set's sorted categories
  lang int32      index into languages.LANGUAGES
  example int32   index into `stream.examples(data_dir)`
and those of the modalities, see parts.py. `epoch` adds valid bool: False in rows that only pad.
"""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from taichu_jax.config import choices
from taichu_jax.data import batches as engine
from taichu_jax.data.audio import RATE, AudioAugment
from taichu_jax.data.budget import within_minutes
from taichu_jax.data.damage import Makes, WithHarms
from taichu_jax.data.images import ImageAugment
from taichu_jax.data.languages import INDEX, UNKNOWN, known
from taichu_jax.data.parts import (
    AudioPart,
    Batch,
    Example,
    Fields,
    ImagePart,
    Part,
    Source,
    TextPart,
)
from taichu_jax.data.records import decoded
from taichu_jax.data.sampler import Contrasts
from taichu_jax.data.tokenizer import ByteTokenizer, Tokenizer
from taichu_jax.data.units import UnitCrops
from taichu_jax.errors import UserError

if TYPE_CHECKING:
    import grain
    import jax


@dataclasses.dataclass(frozen=True, kw_only=True)
class Stream:
    """What all streams share. A stream says which parts and which examples it has."""

    dataset: str = "tuxpaint_stamps"
    split: str = "train"
    batch_size: int = 64  # over all processes
    augment: bool = True
    languages: tuple[str, ...] = ()  # none: all

    def __post_init__(self):
        if self.batch_size < 1:
            raise UserError(f"batch_size={self.batch_size}: must be 1 or more")
        for lang in self.languages:
            known(lang, "languages")

    # ------------------------------------------------------------------- for the training loop

    def fields(self) -> dict[str, "jax.ShapeDtypeStruct"]:
        """The static shapes of one global batch."""
        one = engine.LABELS | {k: v for p in self.parts(None) for k, v in p.fields().items()}
        return shapes(self.batch_size, one)

    def batches(
        self,
        data_dir: str | Path,
        tokenizer: Tokenizer | None,
        *,
        seed: int,
        rows: Sequence[int] | None = None,
        harms: bool = False,
    ) -> "grain.MapDataset":
        """Endless batches; element i holds the rows `rows` of step i's global batch, or all of it.

        With `harms` an element is {"batch": ..., "harms": what was damaged and left out of it}.

        Raises:
          UserError: data that are not there.
        """
        import grain

        own = engine.own_rows(self.batch_size, rows)
        filler = self._filler(data_dir, tokenizer)
        training = self.training(filler, seed, own)
        return grain.MapDataset.source(WithHarms(training) if harms else training)

    def training(self, filler: engine.Filler, seed: int, rows: Sequence[int]) -> Makes:
        """Random access to the batches of one process, of which it has the rows `rows`."""
        return engine.Training(
            filler=filler,
            sampler=self.samplers(filler, seed),
            seed=seed,
            rows=rows,
            augment=self.augment,
        )

    def epoch(self, data_dir: str | Path, tokenizer: Tokenizer | None) -> Iterator[Batch]:
        """Every example of the split once, by language, without augmentation, last batch padded."""
        return engine.epoch(self._filler(data_dir, tokenizer), self.batch_size)

    def examples(self, data_dir: str | Path) -> list[tuple[str, str]]:
        """(id of the record, language) of each example, by its number in `example`."""
        source = self.source(data_dir)
        return [(source.entries[row].id, lang) for row, lang in self.select(source)]

    # ------------------------------------------------------------------- what a stream defines

    def parts(self, tokenizer: Tokenizer | None) -> Sequence[Part]:
        """The modalities of a batch."""
        raise NotImplementedError

    def select(self, source: Source) -> list[Example]:
        """The examples of the split, sorted by language and record."""
        raise NotImplementedError

    def source(self, data_dir: str | Path) -> Source:
        """The split's data."""
        return decoded(data_dir, self.dataset, self.split)

    def samplers(self, filler: engine.Filler, seed: int) -> "engine.SamplerOf":
        """The sampler of each step."""
        everything = np.arange(len(filler.examples))
        return engine.Always(contrasts(filler, everything, batch_size=self.batch_size, seed=seed))

    def _filler(self, data_dir: str | Path, tokenizer: Tokenizer | None) -> engine.Filler:
        source = self.source(data_dir)
        examples = self.select(source)
        if not examples:
            raise UserError(f"{self.dataset}: split {self.split!r} has no example for {self}")
        ready = (tokenizer or ByteTokenizer()).load(data_dir)
        return engine.Filler(source=source, examples=examples, parts=self.parts(ready))

    def _wanted(self, lang: str) -> bool:
        return not self.languages or lang in self.languages


def shapes(batch_size: int, fields: Fields) -> dict[str, "jax.ShapeDtypeStruct"]:
    """The shapes of a batch from those of one example."""
    import jax

    return {
        name: jax.ShapeDtypeStruct((batch_size, *shape), dtype)
        for name, (shape, dtype) in fields.items()
    }


def contrasts(filler: engine.Filler, members: np.ndarray, **options: Any) -> Contrasts:
    """A sampler of the filler's examples `members`."""
    languages = np.array([INDEX[lang] for _, lang in filler.examples])
    concepts = np.array([filler.source.entries[row].concept for row, _ in filler.examples])
    return Contrasts(members, languages, concepts, **options)


@dataclasses.dataclass(frozen=True, kw_only=True)
class _WithImage(Stream):
    image_size: int = 64  # pixels
    views: int = 1
    image_augment: ImageAugment = ImageAugment()

    def _image(self) -> ImagePart:
        return ImagePart(self.image_size, self.views, self.image_augment)


@dataclasses.dataclass(frozen=True, kw_only=True)
class _WithAudio(Stream):
    audio: str = "mel"  # or 'waveform'
    seconds: float = 2.56  # longer recordings are cropped
    mel_bands: int = 80
    normalise: bool = True  # each utterance: mean 0, variance 1
    trim: bool = False  # cut silent ends off
    minutes: float = 0.0  # of the training split, a fixed draw; 0: all
    minutes_seed: int = 0  # of that draw
    views: int = 1
    audio_augment: AudioAugment = AudioAugment()
    clean_mel: bool = False  # also the frames that are to be heard, see parts.AudioPart

    def __post_init__(self):
        super().__post_init__()
        forms = ("mel", "waveform")
        if self.audio not in forms:
            raise UserError(f"audio={self.audio!r}; {choices(self.audio, forms)}")
        if self.clean_mel and self.audio != "mel":
            raise UserError(f"clean_mel=True: needs audio='mel', not {self.audio!r}")
        if self.minutes < 0:
            raise UserError(f"minutes={self.minutes}: must be 0 or more")

    def _affordable(self, source: Source, examples: list[Example]) -> list[Example]:
        if not self.minutes or self.split != "train":
            return examples
        seed, trim = self.minutes_seed, self.trim
        return within_minutes(source, examples, self.minutes, seed=seed, trim=trim)

    def _audio(self) -> AudioPart:
        return AudioPart(
            form=self.audio,
            samples=round(self.seconds * RATE),
            bands=self.mel_bands,
            views=self.views,
            normalise=self.normalise,
            trim=self.trim,
            augment=self.audio_augment,
            clean=self.clean_mel,
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pictures(_WithImage):
    """Pictures alone; with views=2 two augmentations of each, `image` and `image2`."""

    def parts(self, tokenizer: Tokenizer | None) -> Sequence[Part]:
        """The modalities of a batch."""
        del tokenizer
        return [self._image()]

    def select(self, source: Source) -> list[Example]:
        """The records that have a picture."""
        return [Example(row, UNKNOWN) for row, e in enumerate(source.entries) if e.image]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recordings(_WithAudio):
    """Voices alone, over all languages; a language's share is count ** language_temperature.

    With `units` batches have the field of that name, joined by record and language, and follow crops
    and changes of speed. They must have been written from recordings trimmed in the same way.
    """

    same_language: bool = False
    language_temperature: float = 0.5
    units: str = ""  # a folder that launch/cluster.py wrote; empty: none
    unit_rate: float = 100.0  # units per second, and
    unit_clusters: int = 100  # how many there are; that folder's must be the same

    def __post_init__(self):
        super().__post_init__()
        if self.unit_rate <= 0 or self.unit_clusters < 1:
            raise UserError("unit_rate and unit_clusters: must be above 0")
        if self.units and self.audio_augment.shift_seconds:
            raise UserError("units do not follow audio_augment.shift_seconds; set it to 0")

    def parts(self, tokenizer: Tokenizer | None) -> Sequence[Part]:
        """The modalities of a batch."""
        del tokenizer
        crops = UnitCrops(self.units, self.unit_rate) if self.units else None
        return [dataclasses.replace(self._audio(), units=crops)]

    def _filler(self, data_dir: str | Path, tokenizer: Tokenizer | None) -> engine.Filler:
        filler = super()._filler(data_dir, tokenizer)
        if self.units:
            UnitCrops(self.units, self.unit_rate).check(
                [(filler.source.entries[row].id, lang) for row, lang in filler.examples],
                dataset=self.dataset,
                trim=self.trim,
                clusters=self.unit_clusters,
            )
        return filler

    def select(self, source: Source) -> list[Example]:
        """The recordings."""
        examples = _sorted_examples(source, lambda entry: filter(self._wanted, entry.recordings))
        return self._affordable(source, examples)

    def samplers(self, filler: engine.Filler, seed: int) -> "engine.SamplerOf":
        """The sampler of each step."""
        sampler = contrasts(
            filler,
            np.arange(len(filler.examples)),
            batch_size=self.batch_size,
            seed=seed,
            temperature=self.language_temperature,
            same_language=self.same_language,
        )
        return engine.Always(sampler)


MODALITIES = ("text", "image", "audio")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Triplets(_WithImage, _WithAudio):
    """Pictures, words and voices: one picture in one language a row.

    Examples are the recordings, with their words and pictures. With `pairs` > 0 that share of
    the batches is drawn from pictures and words that nobody reads aloud (about 60 languages
    more), and the evaluation has them too. Without 'audio' in `modalities` the examples are the
    words instead.
    """

    modalities: tuple[str, ...] = MODALITIES
    text_length: int = 24  # ids
    same_language: bool = True
    language_temperature: float = 0.5
    pairs: float = 0.0

    def __post_init__(self):
        super().__post_init__()
        for name in self.modalities:
            if name not in MODALITIES:
                raise UserError(f"modalities: no such {name!r}; {choices(name, MODALITIES)}")
        if not 0 <= self.pairs <= 1:
            raise UserError(f"pairs={self.pairs}: must be between 0 and 1")
        if self.minutes and (self.pairs or "audio" not in self.modalities):
            raise UserError(
                "minutes: needs examples that are all recordings (pairs=0, with 'audio')"
            )

    def parts(self, tokenizer: Tokenizer | None) -> Sequence[Part]:
        """The modalities of a batch."""
        parts: dict[str, Callable[[], Part]] = {
            "text": lambda: TextPart(self.text_length, tokenizer),
            "image": self._image,
            "audio": self._audio,
        }
        return [parts[name]() for name in self.modalities]

    def select(self, source: Source) -> list[Example]:
        """The recordings, the texts, or both."""

        def langs(entry):
            langs = set(entry.recordings if "audio" in self.modalities else entry.texts)
            if self.pairs:
                langs.update(entry.texts)
                if not langs and entry.image:
                    langs.add(UNKNOWN)
            return filter(self._wanted, langs)

        return self._affordable(source, _sorted_examples(source, langs))

    def samplers(self, filler: engine.Filler, seed: int) -> "engine.SamplerOf":
        """With pairs, a coin decides between the recordings and the rest."""
        entries = filler.source.entries
        voiced = np.array([lang in entries[row].recordings for row, lang in filler.examples])
        if "audio" not in self.modalities:
            voiced[:] = True
        pools = [
            contrasts(
                filler,
                np.flatnonzero(members),
                batch_size=self.batch_size,
                seed=seed,
                temperature=self.language_temperature,
                same_language=self.same_language,
            )
            for members in (voiced, ~voiced)
            if members.any()
        ]
        if len(pools) == 1:
            return engine.Always(pools[0])
        return engine.Coin(pools[0], pools[1], self.pairs, seed)


def _sorted_examples(source: Source, langs) -> list[Example]:
    pairs = [(lang, row) for row, entry in enumerate(source.entries) for lang in langs(entry)]
    return [Example(row, lang) for lang, row in sorted(pairs)]
