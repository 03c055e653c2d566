"""Seeded texts in many scripts, and everything in Unicode that makes counting characters and tokens hard."""

import random
from collections.abc import Callable, Iterator

# Name of a script → ranges of letters, and of marks that stand on or beside them.
SCRIPTS: dict[str, tuple[list[tuple[int, int]], list[tuple[int, int]]]] = {
    "Latin": ([(0x41, 0x5A), (0x61, 0x7A), (0xC0, 0xD6), (0x100, 0x17F), (0x1EA0, 0x1EF9)], [(0x300, 0x30A)]),
    "Greek": ([(0x391, 0x3A1), (0x3B1, 0x3C9), (0x1F00, 0x1F07)], [(0x300, 0x301)]),
    "Cyrillic": ([(0x410, 0x44F), (0x450, 0x45F)], [(0x483, 0x487)]),
    "Armenian": ([(0x531, 0x556), (0x561, 0x586)], []),
    "Hebrew": ([(0x5D0, 0x5EA)], [(0x5B0, 0x5BC)]),
    "Arabic": ([(0x621, 0x63A), (0x641, 0x64A), (0xFB50, 0xFBB1), (0xFDF0, 0xFDFB)], [(0x64B, 0x652)]),
    "Syriac": ([(0x710, 0x72F)], [(0x730, 0x74A)]),
    "Thaana": ([(0x780, 0x7A5)], [(0x7A6, 0x7B0)]),
    "N'Ko": ([(0x7CA, 0x7EA)], [(0x7EB, 0x7F3)]),
    "Devanagari": ([(0x905, 0x939)], [(0x93E, 0x94D), (0x901, 0x903)]),
    "Bengali": ([(0x995, 0x9A8), (0x9AA, 0x9B0)], [(0x9BE, 0x9C4), (0x9CD, 0x9CD)]),
    "Gurmukhi": ([(0xA15, 0xA28)], [(0xA3E, 0xA42), (0xA4D, 0xA4D)]),
    "Gujarati": ([(0xA95, 0xAA8)], [(0xABE, 0xAC5), (0xACD, 0xACD)]),
    "Oriya": ([(0xB15, 0xB28)], [(0xB3E, 0xB44), (0xB4D, 0xB4D)]),
    "Tamil": ([(0xB95, 0xB95), (0xB99, 0xB9A), (0xBAE, 0xBB9)], [(0xBBE, 0xBC2), (0xBCD, 0xBCD)]),
    "Telugu": ([(0xC15, 0xC28)], [(0xC3E, 0xC44), (0xC4D, 0xC4D)]),
    "Kannada": ([(0xC95, 0xCA8)], [(0xCBE, 0xCC4), (0xCCD, 0xCCD)]),
    "Malayalam": ([(0xD15, 0xD3A)], [(0xD3E, 0xD44), (0xD4D, 0xD4D)]),
    "Sinhala": ([(0xD9A, 0xDB1)], [(0xDCF, 0xDD4), (0xDCA, 0xDCA)]),
    "Thai": ([(0xE01, 0xE2E)], [(0xE31, 0xE31), (0xE34, 0xE3A), (0xE47, 0xE4E)]),
    "Lao": ([(0xE94, 0xE97), (0xE99, 0xE9F)], [(0xEB4, 0xEB9), (0xEC8, 0xECB)]),
    "Tibetan": ([(0xF40, 0xF47), (0xF49, 0xF69)], [(0xF71, 0xF7D), (0xF90, 0xF97)]),
    "Myanmar": ([(0x1000, 0x1020)], [(0x102B, 0x1032), (0x1036, 0x103A)]),
    "Georgian": ([(0x10D0, 0x10F0)], []),
    "Hangul": ([(0xAC00, 0xD7A3)], []),
    "Hangul Jamo": ([(0x1100, 0x1112)], [(0x1161, 0x1175), (0x11A8, 0x11C2)]),
    "Ethiopic": ([(0x1200, 0x1246), (0x1260, 0x1286)], []),
    "Cherokee": ([(0x13A0, 0x13F4)], []),
    "Canadian Aboriginal": ([(0x1401, 0x1500)], []),
    "Khmer": ([(0x1780, 0x17A2)], [(0x17B6, 0x17C5), (0x17D2, 0x17D2)]),
    "Mongolian": ([(0x1820, 0x1842)], [(0x180B, 0x180D)]),
    "Hiragana": ([(0x3041, 0x3096)], [(0x3099, 0x309A)]),
    "Katakana": ([(0x30A1, 0x30FA), (0xFF66, 0xFF9D)], [(0x3099, 0x309A), (0xFF9E, 0xFF9F)]),
    "Bopomofo": ([(0x3105, 0x312F)], []),
    "Han": ([(0x4E00, 0x9FA5), (0x3400, 0x3450)], [(0xE0100, 0xE0103)]),
    "Han, astral": ([(0x20000, 0x20100)], [(0xE0100, 0xE0103)]),
    "Yi": ([(0xA000, 0xA0FF)], []),
    "Gothic": ([(0x10330, 0x1034A)], []),
    "Cuneiform": ([(0x12000, 0x120FF)], []),
    "Hieroglyphs": ([(0x13000, 0x130FF)], []),
    "Adlam": ([(0x1E900, 0x1E943)], [(0x1E944, 0x1E94A)]),
    "Mathematical": ([(0x1D400, 0x1D433), (0x2200, 0x22FF), (0x2460, 0x249B)], [(0x20D0, 0x20DC)]),
}
_ODDITIES = (
    *("👨‍👩‍👧‍👦", "👩🏽‍🚀", "🏴\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f", "🇩🇪🇫🇷🇯", "❤️‍🔥", "1️⃣"),
    *("\u200b", "\u200c", "\u200d", "\u2060", "\ufeff", "\u00ad", "\u034f", "\u180e", "\u3164", "\u115f"),
    *("\u200e", "\u200f", "\u202a", "\u202b", "\u202c", "\u202e", "\u2066", "\u2067", "\u2069", "\u061c"),
    *("\r\n", "\n\n", "\r", "\t", "\v", "\f", "\x00", "\x1b", "\x85", "\u2028", "\u2029", "\u00a0", "\u3000", "   "),
    *(
        "ﷺ",
        "ﬃ",
        "½",
        "㍿",
        "\uff5e",
        "Å",
        "\u017f",
        "İ",
        "ǆ",
        "\ue000",
        "\ufffd",
        "\ufffe",
        "\ufdd0",
        "\U0010ffff",
        "�",
    ),
    *("<s>", "</s>", "<unk>", "<mask>", "▁", "▁▁▁", "search_document: ", "# ", "```\n", "---\n", "…", "!!!", "。", "؟"),
)
_GAPS = (" ", " ", " ", ". ", ", ", "\n", "", "\u3000", "  ", "\r\n", ".\n\n")


def _characters(ranges: list[tuple[int, int]]) -> list[str]:
    return [chr(code) for first, last in ranges for code in range(first, last + 1)]


_LETTERS = {name: _characters(letters) for name, (letters, _) in SCRIPTS.items()}
_MARKS = {name: _characters(marks) for name, (_, marks) in SCRIPTS.items()}


def _word(chosen: random.Random, script: str, longest: int) -> str:
    number = chosen.randint(1, longest)
    letters, marks = chosen.choices(_LETTERS[script], k=number), _MARKS[script]
    if marks:
        letters = [one + chosen.choice(marks) if chosen.random() < 0.3 else one for one in letters]
    return "".join(letters)


def _stack(chosen: random.Random) -> str:
    """A letter under a heap of accents."""
    return "a" + "".join(chr(chosen.randint(0x300, 0x36F)) for _ in range(chosen.randint(5, 60)))


def _endless(chosen: random.Random) -> str:
    """One word without any blank, longer than a model reads."""
    script = chosen.choice(list(SCRIPTS))
    return _word(chosen, script, 20) * chosen.randint(20, 120)


_RARE: tuple[Callable[[random.Random], str], ...] = (_stack, _endless, lambda _: " " * 700, lambda _: "\u0301" * 90)


def texts(seed: int, number: int, *, rare: float = 0.02) -> Iterator[str]:
    """Yield texts with at least one letter each: mostly short, some longer than a model reads at once.

    Every script has its turn; ``rare`` is the share of texts with something that is out of all proportion.
    """
    chosen = random.Random(seed)
    names = list(SCRIPTS)
    for index in range(number):
        mixed = [names[index % len(names)], *chosen.sample(names, chosen.choice((0, 0, 0, 1, 3)))]
        words = chosen.choices((3, 12, 40, 300), (45, 33, 14, 8))[0]
        pieces = [_word(chosen, mixed[0], 4)]
        for _ in range(chosen.randint(1, words)):
            pieces.append(chosen.choice(_GAPS))
            pieces.append(_word(chosen, chosen.choice(mixed), 9))
            if chosen.random() < 0.15:
                pieces.append(chosen.choice(_ODDITIES))
        if chosen.random() < rare:
            pieces.insert(chosen.randrange(len(pieces)), chosen.choice(_RARE)(chosen))
        yield "".join(pieces)
