"""Whatever the text: its parts cover every character, stay in order, fit the model, and none is blank."""

import re

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tiny_model import LIMIT, Tiny

from domain.errors import ObjectFailed
from extractors.text_embedding.chunking import BLANKS, is_blank
from extractors.text_embedding.tokens import TextTokenizer

UNITS = ["none", "characters", "words", "sentences", "paragraphs", "pages", "markdown"]
PIECES = st.sampled_from(
    [
        *("word ", "The end. ", "Dr. Who said: no! ", "a", "\n", "\n\n", "\r\n", "\r\n\r\n", "\f", "\t", "    ", "\0"),
        *(
            "# Title\n",
            "## Deeper\n",
            "```python\nprint(1)\n```\n",
            "~~~\n",
            "Under\n=====\n",
            "---\nkey: value\n---\n",
        ),
        *(
            "漢字かな。",
            "ภาษาไทย",
            "نص عربي؟ ",
            "नमस्ते। ",
            "e\u0301\u0323",
            "👨‍👩‍👧‍👦",
            "🇩🇪🇫🇷",
            "👍🏽",
            "\u200b",
            "\u200d",
        ),
        *("\u2029", "\u2028", "\ufeff", "\u00a0", "\ud800", "ﷺ", "x" * 90, "é" * 40, " " * 70, "\u0301" * 50),
    ]
)
TEXTS = st.one_of(st.lists(PIECES, max_size=40).map("".join), st.text(max_size=200))


@pytest.mark.parametrize("split_by", UNITS)
@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=TEXTS, chunk_size=st.integers(1, 12), share=st.floats(0, 0.99))
def test_parts_cover_every_character_and_fit_the_model(tiny: Tiny, split_by, text, chunk_size, share):
    asked = {"split_by": split_by, "chunk_size": chunk_size, "chunk_overlap": int(chunk_size * share)}
    if is_blank(text):
        with pytest.raises(ObjectFailed):
            tiny.parts(text, **asked)
        return
    text = text.encode("utf-8", "replace").decode()
    extraction = tiny.parts(text, **asked)
    assert extraction == tiny.parts(text, **asked)
    assert extraction.truncated_tokens == 0
    covered = 0
    for index, part in enumerate(extraction.parts):
        start, end = part.fields["start_char"], part.fields["end_char"]
        assert part.fields["chunk_index"] == index
        assert part.fields["total_chunks"] == len(extraction.parts)
        assert part.fields["text"] == text[start:end]
        assert part.text == text[start:end].strip(BLANKS)
        assert not is_blank(part.text)
        assert start <= covered < end
        if asked["chunk_overlap"] == 0 or split_by in {"none", "markdown"}:
            assert start == covered
        covered = end
    assert covered == len(text)
    check_tokens(tiny, extraction.parts)


def check_tokens(tiny: Tiny, parts):
    tokenizer = TextTokenizer(tiny.home_folder, "tiny")
    prefix = tiny.model.document_prefix
    counts = tokenizer.count([prefix + part.text for part in parts])
    assert counts == [part.tokens for part in parts] == [part.fields["token_count"] for part in parts]
    assert max(counts) <= LIMIT


@pytest.mark.parametrize("split_by", ["characters", "words", "sentences", "paragraphs", "pages"])
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.lists(PIECES, max_size=30).map("".join))
def test_a_small_text_in_one_part_is_the_text(tiny: Tiny, split_by, text):
    if is_blank(text) or len(text) > 10:
        return
    extraction = tiny.parts(text, split_by=split_by, chunk_size=10_000)
    if split_by != "characters" and len(extraction.parts) > 1:
        assert sum(part.tokens for part in extraction.parts) > LIMIT
    assert re.sub(r"\ud800", "?", text) == "".join(str(part.fields["text"]) for part in extraction.parts)
