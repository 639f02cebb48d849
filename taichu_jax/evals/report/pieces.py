"""What the report's sections share: names, icons, numbers with their bars."""

from __future__ import annotations

from taichu_jax.evals.report.page import esc

LANGUAGES = {
    "bg": "Bulgarian", "ca": "Catalan", "es": "Spanish", "fr": "French", "ro": "Romanian",
    "ru": "Russian", "en": "English", "el": "Greek", "be": "Belarusian", "da": "Danish",
    "lt": "Lithuanian", "nl": "Dutch", "pt_BR": "Brazilian Portuguese", "zh_CN": "Chinese",
}  # fmt: skip
WORDS = {"text": "words", "image": "picture", "audio": "voice"}
PLURALS = {"text": "words", "image": "pictures", "audio": "voices"}
SPLITS = {
    "test": ("Held-out pictures", "Things that the model has never seen, named or heard."),
    "validation": ("Validation pictures", "Things that were held out to choose settings."),
    "test_recordings": (
        "Held-out recordings",
        "New voices that name things which were seen in training. Directions without the voice "
        "would compare training data with training data, so they are left out.",
    ),
}
_ICONS = {
    "text": '<path d="M4 6h16M4 11h16M4 16h10"/>',
    "image": '<rect x="3" y="4" width="18" height="16" rx="2.5"/><circle cx="9" cy="10" r="1.8"/>'
    '<path d="m4 18 5-4 4 3 4-5 4 5"/>',
    "audio": '<path d="M4 10v4M8 6v12M12 3v18M16 7v10M20 10v4"/>',
}


def arrow(direction: str) -> str:
    """'audio->image' as icons and words."""
    source, _, target = direction.partition("->")
    left = "<span class=arrow>+</span>".join(icon(m) + WORDS[m] for m in source.split("+"))
    return f"<span class=tag>{left}<span class=arrow>→</span>{icon(target)}{PLURALS[target]}</span>"


def tag(source: str) -> str:
    """'text+audio' as icons and words."""
    inner = "<span class=arrow>+</span>".join(icon(m) + WORDS[m] for m in source.split("+"))
    return f"<span class=tag>{inner}</span>"


def presence(subset: str) -> str:
    """All modalities' icons, those of 'text+audio' lit."""
    present = subset.split("+")
    icons = "".join(icon(m, m in present) for m in WORDS)
    return f"<span class=tag>{icons} {esc(' + '.join(WORDS[m] for m in present))}</span>"


def icon(modality: str, on: bool = True) -> str:
    """A modality's picture."""
    off = "" if on else " off"
    paths = _ICONS[modality]
    return f'<svg class="m{modality}{off}" viewBox="0 0 24 24" aria-hidden="true">{paths}</svg>'


def meter(value: float | None, chance: float, interval: tuple[float, float] | None = None) -> str:
    """A percentage with its bar, the mark of chance, and an interval as a thin line."""
    if value is None:
        return "–"
    line = ""
    if interval is not None:
        low, high = interval
        title = f"{low:.1f} to {high:.1f}"
        line = f"<s style='left:{low:.1f}%;width:{high - low:.1f}%' title='{title}'></s>"
    mark = f"<u style='left:{min(chance, 100):.1f}%' title='chance {chance:.1f}'></u>"
    return (
        f"<span class=num><em>{value:.1f}</em><span class=meter><i style='width:{min(value, 100):.1f}%'>"
        f"</i>{line}{mark}</span></span>"
    )


def spread(sizes) -> str:
    """'60–80', or one number."""
    low, high = min(sizes), max(sizes)
    return f"{low}" if low == high else f"{low}–{high}"
