"""The tokenizer of a folder of the Hugging Face layout: its tokenizer.json, or BERT's vocab.txt."""

from __future__ import annotations

from pathlib import Path

from taichu_jax.errors import UserError
from taichu_jax.interop.tensors import read_json
from taichu_jax.probing.readers import NO_WORD, Encode

JSON, PIECES, SETTINGS = "tokenizer.json", "vocab.txt", "tokenizer_config.json"


def their_encode(folder: Path, vocab_size: int) -> Encode:
    """Words to ids as the folder's own tokenizer makes them, with its special ids.

    Raises:
      UserError: there is no vocabulary, or it is damaged or larger than the network's.
    """
    from tokenizers import Tokenizer

    path = next((folder / n for n in (JSON, PIECES) if (folder / n).is_file()), None)
    if path is None:
        raise UserError(
            f"{folder}: text needs its vocabulary; valid: {JSON}, {PIECES}; or another --network"
        )
    try:
        found = Tokenizer.from_file(str(path)) if path.name == JSON else _word_pieces(folder, path)
    except UserError:
        raise
    except Exception as error:  # the library raises plain Exceptions
        raise UserError(f"{path}: is no vocabulary: {str(error).splitlines()[0]}") from error
    if found.get_vocab_size() > vocab_size:
        raise UserError(
            f"{path}: has {found.get_vocab_size():,} ids, but the network {vocab_size:,}"
        )
    found.no_padding()
    found.no_truncation()

    def encode(words):
        whole = found.encode(" ".join(words))
        owner = [n for n, word in enumerate(words) for _ in f"{word} "]  # of every character
        ids = zip(whole.offsets, whole.special_tokens_mask, strict=True)
        owners = [owner[end - 1] if end and not special else NO_WORD for (_, end), special in ids]
        return whole.ids, owners

    return encode


def _word_pieces(folder: Path, path: Path):
    """BERT's (arXiv 1810.04805): its normaliser, WordPiece, [CLS] ... [SEP]."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

    settings = read_json(folder / SETTINGS) if (folder / SETTINGS).is_file() else {}
    found = Tokenizer(models.WordPiece.from_file(str(path), unk_token="[UNK]"))
    missing = [x for x in ("[CLS]", "[SEP]", "[UNK]") if found.token_to_id(x) is None]
    if missing:
        raise UserError(f"{path}: lacks {', '.join(missing)}")
    lower = bool(settings.get("do_lower_case", True))
    found.normalizer = normalizers.BertNormalizer(lowercase=lower)
    found.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    ends = [(x, found.token_to_id(x)) for x in ("[CLS]", "[SEP]")]
    found.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=ends
    )
    return found
