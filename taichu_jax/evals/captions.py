"""Words written from a picture, a voice, or both: greedy decoding from the cross-modal states.

    t_i = argmax_v P(v | t_<i, fusion(subset)),  until [SEP]

Scores against the words that go with the picture: chrF (Popović 2015, sacrebleu's chrF2, 0 to 100),
BLEU-1 to BLEU-4 (sacrebleu, 0 to 100), CIDEr-D (cider.py, times 100 as papers print it), word and
character error rates (jiwer) and the share of exact matches. All but chrF are without case and
punctuation; the words of BLEU and CIDEr are those of `tokens`. BLEU is not smoothed, as for COCO: where
no run of four words is right, BLEU-4 is 0. CIDEr weighs n-grams by the references of one language and
split. Beside them stands what the words of another, random item of the same language would score.
"""

from __future__ import annotations

import dataclasses
import functools
import pathlib
import re
import unicodedata
from typing import Any

import jax.numpy as jnp
import numpy as np

from taichu_jax.data.languages import LANGUAGES, known
from taichu_jax.data.tokenizer import spoken_form
from taichu_jax.errors import UserError
from taichu_jax.evals.cider import cider_d
from taichu_jax.evals.features import collect, thinned
from taichu_jax.evals.media import Gallery, Originals
from taichu_jax.inference.decoding import write_words
from taichu_jax.objectives.multimodal.encoders import Encoders
from taichu_jax.ops.vocabulary import CLS

_ALONE = ("CJK UNIFIED", "CJK COMPATIBILITY", "HIRAGANA", "KATAKANA")  # scripts without spaces


def _has_all(modalities, batch):
    return np.all([batch[f"has_{m}"] for m in modalities], axis=0)


def scores(references: list[str], written: list[str]) -> dict[str, float]:
    """Of the sentences of one language; see the module's docstring. Error rates are in percent."""
    import jiwer
    import sacrebleu

    plain = [(plain_words(a), plain_words(b)) for a, b in zip(references, written, strict=True)]
    spoken = [(a, b) for a, b in plain if a]
    said, heard = [a for a, _ in spoken], [b for _, b in spoken]
    words = [[tokens(text) for text in texts] for texts in (references, written)]
    right, made = ([" ".join(sentence) for sentence in sentences] for sentences in words)
    return {
        "chrF": sacrebleu.corpus_chrf(written, [references]).score,
        "exact": 100.0 * float(np.mean([a == b for a, b in plain])),
        "WER": 100.0 * jiwer.wer(said, heard) if spoken else float("nan"),
        "CER": 100.0 * jiwer.cer(said, heard) if spoken else float("nan"),
        **{
            f"BLEU-{n}": sacrebleu.BLEU(
                tokenize="none", force=True, smooth_method="none", max_ngram_order=n
            )
            .corpus_score(made, [right])
            .score
            for n in (1, 2, 3, 4)
        },
        "CIDEr": 100.0 * float(np.mean(cider_d(*words))),
    }


def plain_words(text: str) -> str:
    """Lower case, without punctuation, one space between words."""
    return " ".join(re.findall(r"\w+", text.casefold()))


def tokens(text: str) -> list[str]:
    """Words for BLEU and CIDEr, in any language: runs of letters, their marks and digits; l'arbre is two.

    Case does not count. Chinese and Japanese have no spaces: every character is a word of its own, as
    in sacrebleu's `zh`.
    """
    return "".join(
        f" {c} " if unicodedata.name(c, "").startswith(_ALONE) else c
        for c in spoken_form(text).replace("'", " ")
    ).split()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Captions:
    """See the module's docstring.

    Attributes:
      stream: a `Triplets` stream; its split is replaced by each of `splits`.
      subsets: what the words are written from.
      languages: languages to write in; each item's own recording is the voice.
      encoders, decoder: names of the networks.
      limit: examples that are scored, per split and language, evenly spread.
      examples: items shown in the report, per split.
    """

    stream: Any
    subsets: tuple[tuple[str, ...], ...] = (("image",), ("audio",), ("image", "audio"))
    languages: tuple[str, ...] = ("fr", "ro", "ru", "bg", "ca", "es")
    splits: tuple[str, ...] = ("test", "test_recordings")
    encoders: Encoders = Encoders()
    decoder: str = "text_decoder"
    limit: int = 40
    examples: int = 9

    def run(self, run, out_dir: pathlib.Path) -> dict[str, Any]:
        """Scores by split, subset and language; example media go to `out_dir`."""
        for name in self.languages:
            known(name, "Captions.languages")
        if run.tokenizer is None:
            raise UserError("Captions: the run has no tokenizer, so it cannot write words")
        write = self.writer(run)
        results, shown = {}, []
        for split in self.splits:
            stream = dataclasses.replace(self.stream, split=split, languages=self.languages)
            stream = thinned(stream, self.limit * len(self.languages))
            needed = sorted({m for subset in self.subsets for m in subset} | {"text"})
            fields, written = collect(
                run,
                stream,
                write,
                fields=("lang", "example"),
                where=functools.partial(_has_all, needed),
            )
            if not fields:
                continue
            originals = Originals(run, stream)
            references = [originals.text(i) for i in fields["example"]]
            names = ["+".join(subset) for subset in self.subsets]
            texts = {name: [run.tokenizer.decode(ids) for ids in written[name]] for name in names}
            results[split] = self._scores(fields["lang"], references, texts)
            gallery = Gallery(run, stream, out_dir)
            for i in self._spread(fields["lang"]):
                card = gallery.card(fields["example"][i], ("image", "audio"))
                shown.append(
                    card
                    | {
                        "split": split,
                        "language": LANGUAGES[fields["lang"][i]],
                        "reference": references[i],
                        "written": {name: lines[i] for name, lines in texts.items()},
                    }
                )
        return {"splits": results, "examples": shown}

    def writer(self, run):
        """From (nets, batch) to {"image+audio": ids int32 [B, L]} for every subset."""
        told = bool(getattr(run.experiment.networks[self.decoder], "languages", 0))

        def write(nets, batch):
            encoded = self.encoders.encode(nets, batch)
            prompt = jnp.full((batch["text"].shape[0], 1), CLS, jnp.int32)
            language = batch["lang"] if told else None
            return {
                "+".join(subset): write_words(
                    nets,
                    self.decoder,
                    self.encoders.fuse(nets, {m: encoded[m] for m in subset}),
                    prompt,
                    batch["text"].shape[1],
                    language,
                )
                for subset in self.subsets
            }

        return write

    def _scores(self, languages, references, texts) -> dict[str, Any]:
        """{subset: {"mean", "languages"}}, with 'another item' among the subsets."""
        result = {}
        guesses = list(references)
        for language in np.unique(languages):
            own = np.flatnonzero(languages == language)
            for i, j in zip(own, np.roll(own, own.size // 2 or 1), strict=True):
                guesses[i] = references[j]
        for name, lines in (texts | {"another item": guesses}).items():
            tables = {}
            for language in np.unique(languages):
                rows = np.flatnonzero(languages == language)
                tables[LANGUAGES[language]] = scores(
                    [references[i] for i in rows], [lines[i] for i in rows]
                )
            mean = {
                key: float(np.mean([t[key] for t in tables.values()]))
                for key in tables[min(tables)]
            }
            result[name] = {"mean": mean, "languages": tables}
        return result

    def _spread(self, languages) -> list[int]:
        """Examples for the report: the languages in turn, items at a fixed stride."""
        present, picked = np.unique(languages), []
        for i in range(min(self.examples, languages.size)):
            own = np.flatnonzero(languages == present[i % present.size])
            picked.append(int(own[(5 + 17 * i) % own.size]))
        return list(dict.fromkeys(picked))
