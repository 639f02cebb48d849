"""What a run writes, draws and says about a person's picture, sound and words."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable, Hashable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from taichu_jax.config import choices
from taichu_jax.data.languages import UNKNOWN
from taichu_jax.errors import UserError
from taichu_jax.evals.features import jitted
from taichu_jax.inference import beam
from taichu_jax.inference.codes import longest, write_picture_codes, write_voice_codes
from taichu_jax.inference.decoding import Ids, Sampling, attending, bucket, write
from taichu_jax.inference.inputs import Given, Read, read
from taichu_jax.inference.vocoder import griffin_lim
from taichu_jax.models.code_decoder import CodeDecoder
from taichu_jax.models.layers import Encoded
from taichu_jax.models.text import TextDecoder
from taichu_jax.objectives.multimodal.code_reconstruction import CodeReconstruction
from taichu_jax.objectives.multimodal.opt_modality_level import OPTModalityLevel
from taichu_jax.ops.random import fold_name
from taichu_jax.ops.vocabulary import CLS

KINDS = ("text", "image", "audio")
MOST = 64  # samples of one call
CODES_TOP_K = 32  # of the codes of pictures and sounds, unless another number is set
_DECODERS = {"text": TextDecoder, "image": CodeDecoder, "audio": CodeDecoder}
_LOUDEST = 40.0  # of log-mel frames, in nepers: 150 dB more than any recording has

Vocoder = Callable[[Sequence[np.ndarray]], Sequence[np.ndarray]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """What is wanted, and how it is written.

    Attributes:
      kinds: some of KINDS.
      samples: of each kind.
      seed: sample i of a kind depends on it and on i alone.
      temperature, top_k, top_p: of all that is drawn, see `Sampling`. None takes the likeliest ids of a
        single text, and draws everything else at temperature 1, codes from the CODES_TOP_K likeliest.
      beams: width of the beam search that is used for texts instead; 0 for none.
      alpha: the beam's length penalty.
      no_repeat: of texts, see `Ids`.
    """

    kinds: tuple[str, ...] = ("text",)
    samples: int = 1
    seed: int = 0
    temperature: float | None = None
    top_k: int | None = None
    top_p: float = 1.0
    beams: int = 0
    alpha: float = 0.6
    no_repeat: int = 0

    def __post_init__(self):
        for kind in self.kinds:
            if kind not in KINDS:
                raise UserError(f"--to {kind}: no such kind; {choices(kind, KINDS)}")
        if not 1 <= self.samples <= MOST:
            raise UserError(f"--samples {self.samples}: must be from 1 to {MOST}")
        if not 0 <= self.seed < 2**32:
            raise UserError(f"--seed {self.seed}: must be from 0 to {2**32 - 1}")
        if self.alpha < 0:
            raise UserError(f"--alpha {self.alpha}: must be 0 or more")
        if self.beams:
            self._check_beams()
        for kind in self.kinds:
            sampling = self.sampling(kind).check()
            drawn = kind != "text" or not self.beams
            if drawn and self.samples > 1 and not sampling.temperature:
                raise UserError(
                    f"--samples {self.samples}: at temperature 0 all are the same; "
                    "set --temperature above 0" + " or --beams" * (kind == "text")
                )

    def _check_beams(self):
        if not 0 <= self.beams <= MOST:
            raise UserError(f"--beams {self.beams}: must be from 0 to {MOST}")
        if "text" not in self.kinds:
            raise UserError(f"--beams {self.beams}: only for text, which --to does not name")
        if self.temperature and self.kinds == ("text",):
            raise UserError("--beams and --temperature exclude each other; leave one out")
        if self.samples > self.beams:
            raise UserError(f"--samples {self.samples}: a beam of {self.beams} has no more texts")

    def sampling(self, kind: str) -> Sampling:
        """How ids of a kind are drawn."""
        likeliest = kind == "text" and self.samples == 1
        temperature = (0.0 if likeliest else 1.0) if self.temperature is None else self.temperature
        top_k = (0 if kind == "text" else CODES_TOP_K) if self.top_k is None else self.top_k
        return Sampling(temperature, top_k, self.top_p)


@dataclasses.dataclass(frozen=True)
class Written:
    """A text and its log P, without temperature and filters."""

    text: str
    log_p: float


@dataclasses.dataclass(frozen=True)
class Drawn:
    """A picture, uint8 [H, W, 3], and the codes that it was decoded from, int32 [h, w]."""

    pixels: np.ndarray
    codes: np.ndarray


@dataclasses.dataclass(frozen=True)
class Spoken:
    """A sound, float32 [samples] at 16 kHz in [-1, 1], its codes int32 [N, stages] and log-mel frames."""

    wave: np.ndarray
    codes: np.ndarray
    mel: np.ndarray


@dataclasses.dataclass(frozen=True, kw_only=True)
class Made:
    """All that was made, in the order of the samples' numbers, texts of a beam best first.

    Attributes:
      notes: what a person should know of it.
    """

    texts: tuple[Written, ...] = ()
    pictures: tuple[Drawn, ...] = ()
    sounds: tuple[Spoken, ...] = ()
    notes: tuple[str, ...] = ()


class Generator:
    """What can be made with a run.

    Args:
      run: an open run.

    Attributes:
      can: the kinds, in the order of KINDS.

    Raises:
      UserError: the run has no decoder.
    """

    def __init__(self, run: Any):
        found: dict[str, Any] = {}
        for objective in run.experiment.objectives.values():
            if isinstance(objective, OPTModalityLevel) and run.tokenizer is not None:
                found.setdefault("text", objective)
            elif isinstance(objective, CodeReconstruction):
                found.setdefault(objective.own, objective)
        if not found:
            raise UserError(
                f"{run.path}: has no decoder, so it can write nothing; runs with the objective "
                "OPTModalityLevel can make text, OPTImageReconstruction: image, "
                "OPTAudioReconstruction: audio"
            )
        self.run, self._objectives = run, found
        self.can = tuple(kind for kind in KINDS if kind in found)
        for kind, objective in found.items():
            network, valid = run.experiment.networks[objective.decoder], _DECODERS[kind]
            if not isinstance(network, valid):
                raise UserError(
                    f"{run.path}: network {objective.decoder!r} is a {type(network).__name__}; "
                    f"valid: {valid.__name__}"
                )
        self._programs: dict[Hashable, Callable[..., Any]] = {}

    def check(self, kinds: Sequence[str]) -> None:
        """Raises UserError if the run cannot make one of the kinds."""
        for kind in kinds:
            if kind not in self.can:
                raise UserError(
                    f"{self.run.path}: the run has no decoder for {kind}; "
                    f"it can write: {', '.join(self.can)}"
                )

    def read(self, given: Given, kinds: Sequence[str] = ("text",)) -> dict[str, Read]:
        """Stream -> the given as a row of it, for the decoders of these kinds; see `inputs.read`.

        Raises:
          UserError: it cannot be read, or a decoder must be told the language.
        """
        self.check(kinds)
        told = [kind for kind in kinds if self._decoder(kind).languages]
        if told and given.language == UNKNOWN:
            raise UserError(
                f"{self.run.path}: its decoder of {told[0]} must be told the language; set --language"
            )
        names = dict.fromkeys(self._objectives[kind].source for kind in kinds)
        streams, tokenizer = self.run.experiment.streams, self.run.tokenizer
        return {name: read(given, streams[name], tokenizer, str(self.run.path)) for name in names}

    def make(self, given: Given, options: Options, vocoder: Vocoder | None = None) -> Made:
        """Everything that is wanted.

        Args:
          vocoder: from log-mel frames to waves; None for Griffin-Lim.

        Raises:
          UserError: the input cannot be read, or the run cannot make this kind.
        """
        rows = self.read(given, options.kinds)
        notes = [note for row in rows.values() for note in row.notes]
        memories: dict[Any, Encoded] = {}
        made: dict[str, Any] = {}
        for kind in options.kinds:
            encoders, source = self._objectives[kind].encoders, self._objectives[kind].source
            batch = rows[source].batch
            if (source, encoders) not in memories:  # decoders of one stream share it
                memories[source, encoders] = self._fused(encoders, batch, given.modalities)
            memory = memories[source, encoders]
            if kind == "text":
                made["texts"] = self._texts(memory, batch, options)
            elif kind == "image":
                made["pictures"] = self._pictures(memory, batch, options)
            else:
                made["sounds"], quieter = self._sounds(memory, batch, options, vocoder)
                notes += quieter
        return Made(**made, notes=tuple(dict.fromkeys(notes)))

    # ----------------------------------------------------------------------------------- one kind

    def _fused(self, encoders, batch, modalities) -> Encoded:
        """The states of what is given, [1, M, D], for every decoder."""

        def compute(nets, batch):
            encoded = encoders.encode(nets, batch, modalities=modalities)
            return encoders.fuse(nets, encoded).replace(layers=())

        return self._program(("fused", encoders, modalities), compute)(batch)

    def _texts(self, memory, batch, options: Options) -> tuple[Written, ...]:
        objective, spelling = self._objectives["text"], Ids(no_repeat=options.no_repeat)
        name, beams = objective.decoder, options.beams
        length = min(self._decoder("text").length, self._stream("text").text_length)
        rows = 1 if beams else _rows(options)

        def compute(nets, memory, language, key, sampling, alpha):
            memory, told = _repeated(memory, rows), self._told("text", language, rows)
            prompt = jnp.full((rows, 1), CLS, jnp.int32)
            decoder = attending(nets, name, length)
            cache = decoder.start(memory, told)
            if beams:
                (ids, log_p), _ = beam.search(
                    decoder, cache, prompt, length, beams=beams, alpha=alpha, ids=spelling
                )
                return ids[0], log_p[0]
            return write(decoder, cache, prompt, length, ids=spelling, sampling=sampling, key=key)

        program = self._program(("text", rows, beams, spelling), compute)
        key, sampling = jax.random.key(options.seed), options.sampling("text")
        ids, log_p = program(memory, batch["lang"], key, sampling, options.alpha)
        texts = [" ".join(self.run.tokenizer.decode(line).split()) for line in np.asarray(ids)]
        pairs = zip(texts, np.asarray(log_p).tolist(), strict=True)
        return tuple(Written(text, value) for text, value in pairs)[: options.samples]

    def _pictures(self, memory, batch, options: Options) -> tuple[Drawn, ...]:
        objective, rows = self._objectives["image"], _rows(options)
        tokeniser = self.run.experiment.networks[objective.tokeniser]
        side = self._stream("image").image_size // tokeniser.shrink

        def compute(nets, memory, language, key, sampling):
            memory, told = _repeated(memory, rows), self._told("image", language, rows)
            codes = write_picture_codes(
                nets, objective.decoder, memory, (side, side),
                sampling=sampling, key=key, language=told,
            )  # fmt: skip
            return codes, nets(objective.tokeniser, codes, method="decode").astype(jnp.float32)

        program = self._program(("image", rows), compute)
        key = fold_name(jax.random.key(options.seed), "image")
        codes, pictures = program(memory, batch["lang"], key, options.sampling("image"))
        pixels = np.round(np.asarray(pictures) * 255).astype(np.uint8)
        pairs = zip(pixels, np.asarray(codes), strict=True)
        return tuple(Drawn(*pair) for pair in pairs)[: options.samples]

    def _sounds(self, memory, batch, options: Options, vocoder: Vocoder | None):
        """(sounds, notes)."""
        objective, rows = self._objectives["audio"], _rows(options)
        stride = self.run.experiment.networks[objective.tokeniser].stride
        length = longest(self._decoder("audio"))

        def compute(nets, memory, language, key, sampling):
            memory, told = _repeated(memory, rows), self._told("audio", language, rows)
            codes, lengths = write_voice_codes(
                nets, objective.decoder, memory, length, sampling=sampling, key=key, language=told
            )
            mel = nets(objective.tokeniser, codes, lengths * stride, method="decode")
            return codes, lengths, mel.astype(jnp.float32)

        program = self._program(("audio", rows), compute)
        key = fold_name(jax.random.key(options.seed), "audio")
        made = program(memory, batch["lang"], key, options.sampling("audio"))
        codes, lengths, mels = (np.asarray(x)[: options.samples] for x in made)
        spoken = [mel[: n * stride] for mel, n in zip(mels, lengths, strict=True)]
        if vocoder is None:
            waves, notes = _unclipped(spoken)
        else:
            waves, notes = list(vocoder(spoken)), []
        rows_of = zip(waves, codes, lengths, spoken, strict=True)
        return tuple(Spoken(wave, line[:n], mel) for wave, line, n, mel in rows_of), notes

    # -------------------------------------------------------------------------------------- helpers

    def _decoder(self, kind: str) -> Any:
        return self.run.experiment.networks[self._objectives[kind].decoder]

    def _stream(self, kind: str) -> Any:
        return self.run.experiment.streams[self._objectives[kind].source]

    def _told(self, kind: str, language: jax.Array, rows: int) -> jax.Array | None:
        return jnp.repeat(language, rows, axis=0) if self._decoder(kind).languages else None

    def _program(self, key: Hashable, compute: Callable[..., Any]) -> Callable[..., Any]:
        """Compiled once for all calls with this key, which names all that `compute` closes over."""
        if key not in self._programs:
            self._programs[key] = jitted(self.run, compute)
        return self._programs[key]


def _rows(options: Options) -> int:
    """One shape for many numbers of samples, so that few programs are compiled."""
    return bucket(options.samples, MOST, 1)


def _repeated(memory: Encoded, rows: int) -> Encoded:
    return jax.tree.map(lambda x: jnp.repeat(x, rows, axis=0), memory)


def _unclipped(mels: Sequence[np.ndarray]) -> tuple[list[np.ndarray], list[str]]:
    """(sounds below full scale, notes of those that had to be made quieter)."""
    waves, notes = [], []
    for number, mel in enumerate(mels):
        if not mel.max() < _LOUDEST:
            raise UserError(
                f"sound {number}: its frames are not finite or far too loud to be sound"
            )
        for halvings in itertools.count():
            wave = griffin_lim(mel - 2 * halvings * math.log(2))  # frames are of power
            if np.abs(wave).max() < 1:
                break
        if halvings:
            notes.append(f"sound {number} would clip and is {6 * halvings} dB quieter")
        waves.append(wave)
    return waves, notes
