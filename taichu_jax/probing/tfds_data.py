"""Examples of a TensorFlow Datasets data set, read without TensorFlow: `--data tfds:NAME`.

NAME is of the catalogue, with or without a configuration and a version, and lies below --data_dir or
TFDS's own folder; or it is the folder of a prepared version. Splits train and test, else validation. Its
first picture, sound or text feature is the example, its scalar classes, strings and whole numbers are the
labels (a class by its name). It is never fetched from here: what TFDS would fetch may be large, and has a
licence to be read first.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import soxr

from taichu_jax.data import audio, images
from taichu_jax.data.items import Damaged, text_fault
from taichu_jax.errors import UserError
from taichu_jax.probing.examples import TEST, TRAIN, Row, thinned

HELD_OUT = ("test", "validation")
MOST = 20_000  # examples of a split whose labels are read; a large set would take hours


class TfdsExamples:
    """See the module's docstring. Labels are read once, when it is opened."""

    own = True

    def __init__(self, where: str, data_dir: str = ""):
        builder = _builder(where, data_dir)
        self.name = builder.info.name
        features = builder.info.features
        self._feature, self.modality = _content(features, self.name)
        self._rate = getattr(features[self._feature], "sample_rate", None) or audio.RATE
        labels = _labels(features, self._feature)
        if not labels:
            raise UserError(f"tfds:{where}: has no scalar feature that could be a label")
        held = next((name for name in HELD_OUT if name in builder.info.splits), "")
        if TRAIN not in builder.info.splits or not held:
            have = ", ".join(builder.info.splits) or "none"
            raise UserError(f"tfds:{where}: has the splits {have}; needed: train, and test")
        self._sources: dict[str, Any] = {}
        self.rows: list[Row] = []
        self._places: list[tuple[str, int]] = []
        self.notes: list[str] = [] if held == TEST else [f"its split {held!r} is the test"]
        for split, name in ((TRAIN, TRAIN), (TEST, held)):
            self._sources[split] = _source(builder, name, self._feature, self.modality)
            self._label(split, name, labels, features)

    def _label(self, split: str, name: str, labels: Sequence[str], features: Any) -> None:
        source, bad = self._sources[split], []
        if len(source) > MOST:
            self.notes.append(
                f"{MOST:,} of the {len(source):,} examples of {name!r}, evenly spread"
            )
        for place in thinned(range(len(source)), MOST):
            key = f"{name}:{place}"
            try:
                record = source[place]
                found = {label: _word(record[label], features[label]) for label in labels}
            except (
                Exception
            ) as error:  # what damaged records raise depends on where they are damaged
                bad.append(f"{key} ({(str(error) or type(error).__name__).splitlines()[0][:80]})")
                continue
            self.rows.append(Row(key=key, split=split, group=key, labels=found))
            self._places.append((split, place))
        if bad:
            self.notes.append(f"{len(bad):,} damaged left out: {'; '.join(bad[:3])}")

    def _read(self, i: int) -> Any:
        split, place = self._places[i]
        try:
            return self._sources[split][place][self._feature]
        except Exception as error:
            raise Damaged(f"record cannot be read ({type(error).__name__})") from error

    def wave(self, i: int, trim: bool = False) -> np.ndarray:
        """float32 [samples] at 16 kHz."""
        found = self._read(i)
        if isinstance(found, bytes):
            wave = audio.decode(found)
        else:
            wave = np.asarray(found, np.float32)
            wave = wave.mean(-1) if wave.ndim == 2 else wave
            if np.issubdtype(np.asarray(found).dtype, np.integer):
                wave = wave / 32768
            if self._rate != audio.RATE and len(wave):
                wave = soxr.resample(wave, self._rate, audio.RATE)
            if len(wave) < audio.HOP or not np.isfinite(wave).all():
                raise Damaged("sound is empty or not finite")
        return audio.trim_silence(wave) if trim else wave

    def canvas(self, i: int, side: int) -> np.ndarray:
        """uint8 [side, side, 4], premultiplied."""
        return images.canvas(images.decode(self._read(i)), side)

    def text(self, i: int) -> str:
        """The text, or what is said."""
        if self.modality != "text":
            return str(self.rows[i].labels.get("text", ""))
        text = self._read(i).decode("utf8", errors="replace")
        if fault := text_fault(text):
            raise Damaged(fault)
        return text

    def words(self, i: int) -> tuple[list[str], list[str]]:
        """None: see own.py for words with tags."""
        raise UserError(f"tfds:{self.name}: has no words with tags")


def _builder(where: str, data_dir: str) -> Any:
    import tensorflow_datasets as tfds

    try:
        if Path(where).is_dir():
            return tfds.builder_from_directory(where)
        builder = tfds.builder(where, **({"data_dir": data_dir} if data_dir else {}))
    except Exception as error:  # an unknown name, a damaged folder: of many kinds
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(f"tfds:{where}: cannot be opened: {reason}") from error
    if not Path(builder.data_dir).is_dir():
        raise UserError(
            f"tfds:{where}: is not in {builder.data_dir}; make it with: tfds build {where} "
            "--file_format=array_record"
        )
    return builder


def _source(builder: Any, split: str, feature: str, modality: str) -> Any:
    import tensorflow_datasets as tfds

    as_stored = {feature: tfds.decode.SkipDecoding()} if modality == "image" else None
    try:
        return builder.as_data_source(split=split, decoders=as_stored)
    except Exception as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(
            f"tfds:{builder.info.name}: random access needs array_record files: {reason}"
        ) from error


def _content(features: Any, name: str) -> tuple[str, str]:
    """(name of the feature that is probed, its modality)."""
    import tensorflow_datasets as tfds

    kinds = (("image", tfds.features.Image), ("speech", tfds.features.Audio))
    for modality, kind in kinds:
        for key, feature in features.items():
            if isinstance(feature, kind):
                return key, modality
    for key, feature in features.items():
        if isinstance(feature, tfds.features.Text):
            return key, "text"
    raise UserError(
        f"tfds:{name}: has no Image, Audio or Text feature; it has: {', '.join(features)}"
    )


def _labels(features: Any, content: str) -> list[str]:
    """Scalar classes, strings and whole numbers."""
    import tensorflow_datasets as tfds

    found = []
    for key, feature in features.items():
        scalar = getattr(feature, "shape", None) == ()
        kind = getattr(feature, "np_dtype", None)
        plain = isinstance(feature, tfds.features.ClassLabel | tfds.features.Text)
        if key != content and scalar and (plain or kind in (np.int32, np.int64, np.bool_)):
            found.append(key)
    return found


def _word(value: Any, feature: Any) -> str:
    if hasattr(feature, "int2str"):
        return str(feature.int2str(int(value)))
    return value.decode("utf8") if isinstance(value, bytes) else str(value)
