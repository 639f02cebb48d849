"""What a run writes for a person's picture, sound and words."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from taichu_jax.config import choices
from taichu_jax.data.languages import UNKNOWN
from taichu_jax.errors import UserError
from taichu_jax.evals.features import jitted
from taichu_jax.inference import beam
from taichu_jax.inference.decoding import Ids, Sampling, attending, bucket, write
from taichu_jax.inference.inputs import Given, Read, read
from taichu_jax.models.text import TextDecoder
from taichu_jax.objectives.multimodal.opt_modality_level import OPTModalityLevel
from taichu_jax.ops.vocabulary import CLS

KINDS = ("text", "image", "audio")
MOST = 64  # samples of one call


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """How it is written.

    Attributes:
      samples: texts that are wanted.
      seed: sample i depends on it and on i alone.
      sampling: see there.
      beams: width of the beam search that is used instead of sampling; 0 for none.
      alpha: the beam's length penalty.
      no_repeat: see `Ids`.
    """

    samples: int = 1
    seed: int = 0
    sampling: Sampling = Sampling()
    beams: int = 0
    alpha: float = 0.6
    no_repeat: int = 0

    def __post_init__(self):
        self.sampling.check()
        if not 1 <= self.samples <= MOST:
            raise UserError(f"--samples {self.samples}: must be from 1 to {MOST}")
        if not 0 <= self.seed < 2**32:
            raise UserError(f"--seed {self.seed}: must be from 0 to {2**32 - 1}")
        if not 0 <= self.beams <= MOST:
            raise UserError(f"--beams {self.beams}: must be from 0 to {MOST}")
        if self.alpha < 0:
            raise UserError(f"--alpha {self.alpha}: must be 0 or more")
        if self.beams and self.sampling.temperature:
            raise UserError("--beams and --temperature exclude each other; leave one out")
        if self.beams and self.samples > self.beams:
            raise UserError(f"--samples {self.samples}: a beam of {self.beams} has no more texts")
        if self.samples > 1 and not self.beams and not self.sampling.temperature:
            raise UserError(
                f"--samples {self.samples}: at temperature 0 all are the same; "
                "set --temperature above 0 or --beams"
            )


@dataclasses.dataclass(frozen=True)
class Written:
    """A text and its log P, without temperature and filters."""

    text: str
    log_p: float


class Generator:
    """What can be written with a run.

    Args:
      run: an open run.

    Attributes:
      stream: whose fields are read.

    Raises:
      UserError: the run has no decoder.
    """

    def __init__(self, run: Any):
        found = [x for x in run.experiment.objectives.values() if isinstance(x, OPTModalityLevel)]
        if not found or run.tokenizer is None:
            raise UserError(
                f"{run.path}: has no decoder, so it can write nothing; "
                "a run with the objective OPTModalityLevel can write: text"
            )
        self.run, self._objective = run, found[0]
        self.stream = run.experiment.streams[self._objective.source]
        network = run.experiment.networks[self._objective.decoder]
        if not isinstance(network, TextDecoder):
            raise UserError(
                f"{run.path}: network {self._objective.decoder!r} is a {type(network).__name__}; "
                "valid: TextDecoder"
            )
        self.told = network.languages > 0
        self._length = min(network.length, self.stream.text_length)

    def check(self, kinds: tuple[str, ...]) -> None:
        """Raises UserError if a kind is unknown, or the run cannot write it."""
        for kind in kinds:
            if kind not in KINDS:
                raise UserError(f"--to {kind}: no such kind; {choices(kind, KINDS)}")
            if kind != "text":
                raise UserError(
                    f"{self.run.path}: the run has no decoder for {kind}; it can write: text"
                )

    def read(self, given: Given) -> Read:
        """See `inputs.read`. Raises UserError."""
        if self.told and given.language == UNKNOWN:
            raise UserError(
                f"{self.run.path}: its decoder must be told the language; set --language"
            )
        return read(given, self.stream, self.run.tokenizer, str(self.run.path))

    def words(self, given: Given, options: Options) -> tuple[list[Written], Read]:
        """The texts, best first or in the order of their numbers, and how the input was read.

        Raises:
          UserError: the input cannot be read.
        """
        row = self.read(given)
        ids, log_p = self._ids(row.batch, given.modalities, options)
        texts = [
            Written(" ".join(self.run.tokenizer.decode(line).split()), float(value))
            for line, value in zip(ids, log_p, strict=True)
        ]
        return texts[: options.samples], row

    def _ids(self, batch, modalities, options: Options) -> tuple[np.ndarray, np.ndarray]:
        """(ids [N, L], log P [N]) of at least so many samples as are wanted."""
        encoders, name = self._objective.encoders, self._objective.decoder
        spelling = Ids(no_repeat=options.no_repeat)
        # One shape for many numbers of samples, so that few programs are compiled.
        rows = 1 if options.beams else bucket(options.samples, MOST, 1)

        def compute(nets, batch, key, sampling, alpha):
            encoded = encoders.encode(nets, batch, modalities=modalities)
            memory = encoders.fuse(nets, encoded).replace(layers=())
            memory = jax.tree.map(lambda x: jnp.repeat(x, rows, axis=0), memory)
            language = jnp.repeat(batch["lang"], rows, axis=0) if self.told else None
            prompt = jnp.full((rows, 1), CLS, jnp.int32)
            decoder = attending(nets, name, self._length)
            cache = decoder.start(memory, language)
            if options.beams:
                (ids, log_p), _ = beam.search(
                    decoder, cache, prompt, self._length,
                    beams=options.beams, alpha=alpha, ids=spelling,
                )  # fmt: skip
                return ids[0], log_p[0]
            return write(
                decoder, cache, prompt, self._length, ids=spelling, sampling=sampling, key=key
            )

        key = jax.random.key(options.seed)
        ids, log_p = jitted(self.run, compute)(batch, key, options.sampling, options.alpha)
        return np.asarray(ids), np.asarray(log_p)
