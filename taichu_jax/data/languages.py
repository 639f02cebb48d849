"""The fixed table of languages: `lang` in a batch is an index into `LANGUAGES`."""

from taichu_jax.config import choices
from taichu_jax.errors import UserError

_TWO_LETTERS = """
aa ab ae af ak am an ar as av ay az ba be bg bi bm bn bo br bs ca ce ch co cr cs cu cv cy da de dv
dz ee el en eo es et eu fa ff fi fj fo fr fy ga gd gl gn gu gv ha he hi ho hr ht hu hy hz ia id ie
ig ii ik io is it iu ja jv ka kg ki kj kk kl km kn ko kr ks ku kv kw ky la lb lg li ln lo lt lu lv
mg mh mi mk ml mn mr ms mt my na nb nd ne ng nl nn no nr nv ny oc oj om or os pa pi pl ps pt qu rm
rn ro ru rw sa sc sd se sg si sk sl sm sn so sq sr ss st su sv sw ta te tg th ti tk tl tn to tr ts
tt tw ty ug uk ur uz ve vi vo wa wo xh yi yo za zh zu
""".split()  # ISO 639-1
_OTHERS = (
    "ach ast ca@valencia en_AU en_GB kab nso pt_BR shs son sr@latin und vec zh_CN zh_TW".split()
)

UNKNOWN = "und"  # ISO 639-2 for undetermined: pictures, and text whose language nobody named
LANGUAGES: tuple[str, ...] = tuple(sorted(_TWO_LETTERS + _OTHERS))
INDEX: dict[str, int] = {lang: i for i, lang in enumerate(LANGUAGES)}

# Where a whole Unicode script belongs to the language, a text without one letter of it is damaged.
SCRIPTS: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("be", "bg", "mk", "ru", "sr", "uk"), ("CYRILLIC",)),
    **dict.fromkeys(("zh_CN", "zh_TW", "ja"), ("CJK", "HIRAGANA", "KATAKANA")),
    "am": ("ETHIOPIC",), "ar": ("ARABIC",), "el": ("GREEK",), "fa": ("ARABIC",),
    "gu": ("GUJARATI",), "he": ("HEBREW",), "hi": ("DEVANAGARI",), "hy": ("ARMENIAN",),
    "iu": ("CANADIAN",), "ka": ("GEORGIAN",), "km": ("KHMER",), "ko": ("HANGUL",),
    "ml": ("MALAYALAM",), "ta": ("TAMIL",), "th": ("THAI",),
}  # fmt: skip


def known(lang: str, where: str) -> str:
    """`lang` itself if the table has it.

    Raises:
      UserError: it does not; `where` says who asked.
    """
    if lang not in INDEX:
        raise UserError(f"{where}: unknown language {lang!r}; {choices(lang, LANGUAGES)}")
    return lang
