"""What the parts of a text are: units, fields, limits, and what is refused."""

import time

import pytest
from tiny_model import LIMIT, Tiny

from domain.errors import ObjectFailed
from extractors.contract import Extraction, Source
from extractors.text_embedding import chunking, markdown
from extractors.text_embedding.fitting import Fitter
from extractors.text_embedding.tokens import TextTokenizer


def texts(extraction: Extraction) -> list[object]:
    return [part.fields["text"] for part in extraction.parts]


def refusal(tiny: Tiny, text: object, **parameters) -> ObjectFailed:
    with pytest.raises(ObjectFailed) as caught:
        tiny.parts(text, **parameters)
    return caught.value


def test_a_short_text_is_one_part_with_its_place_and_its_tokens(tiny):
    (part,) = tiny.parts("the end").parts
    assert part.text == "the end"
    assert part.fields == {
        "text": "the end",
        "chunk_index": 0,
        "total_chunks": 1,
        "start_char": 0,
        "end_char": 7,
        "token_count": part.tokens,
    }
    assert 2 < part.tokens <= LIMIT


def test_white_space_around_a_part_is_kept_in_its_text_and_not_embedded(tiny):
    (part,) = tiny.parts("  the end \n").parts
    assert part.fields["text"] == "  the end \n"
    assert part.text == "the end"


def test_sentences_are_kept_whole_and_abbreviations_do_not_end_them(tiny):
    extraction = tiny.parts("He is. So it goes! Is it? Yes.", split_by="sentences", chunk_size=2)
    assert texts(extraction) == ["He is. So it goes! ", "Is it? Yes."]


def test_sentences_of_other_scripts_are_found(tiny):
    assert texts(tiny.parts("漢字。仮名。", split_by="sentences", chunk_size=1, language="ja")) == ["漢字。", "仮名。"]


def test_an_unknown_language_still_finds_sentences(tiny):
    assert texts(tiny.parts("One. Two.", split_by="sentences", chunk_size=1, language="tlh")) == ["One. ", "Two."]


def test_too_many_sentences_for_the_model_are_cut_between_sentences(tiny):
    sentence = "the end of the end. "
    extraction = tiny.parts(sentence * 20, split_by="sentences")
    assert len(extraction.parts) > 3
    assert all(str(text).endswith(". ") and str(text).startswith("the end of") for text in texts(extraction))


def test_too_long_a_text_is_cut_at_the_best_boundary_there_is(tiny):
    assert texts(tiny.parts("x" * 15 + "\n\n" + "y. " * 9))[0] == "x" * 15 + "\n\n"
    assert str(texts(tiny.parts("on and on " * 30))[0]).endswith(" ")
    assert len(texts(tiny.parts("z" * 200))) > 6


def test_words_overlap_by_as_many_as_were_asked_for(tiny):
    extraction = tiny.parts("a b c d e", split_by="words", chunk_size=3, chunk_overlap=1)
    assert texts(extraction) == ["a b c ", "c d e"]


def test_characters_are_counted_as_code_points(tiny):
    assert texts(tiny.parts("aé漢👍b", split_by="characters", chunk_size=2)) == ["aé", "漢👍", "b"]


def test_paragraphs_end_at_blank_lines_of_either_kind(tiny):
    extraction = tiny.parts("one\ntwo\n\nthree\r\n \r\nfour", split_by="paragraphs", chunk_size=1)
    assert texts(extraction) == ["one\ntwo\n\n", "three\r\n \r\n", "four"]


def test_pages_know_their_numbers_even_when_one_is_cut_or_blank(tiny):
    long_page = "on and on " * 30
    extraction = tiny.parts(f"first\f\f{long_page}\flast", split_by="pages", chunk_size=1)
    numbers = [part.fields["page_number"] for part in extraction.parts]
    assert numbers[0] == 1
    assert numbers[1:-1] == [3] * (len(numbers) - 2)
    assert len(numbers) > 4
    assert numbers[-1] == 4


def test_several_pages_in_a_part_are_cut_between_pages_when_they_are_too_long(tiny):
    extraction = tiny.parts("\f".join(["the end of the end "] * 8), split_by="pages")
    assert all(str(text).endswith("\f") for text in texts(extraction)[:-1])


def test_markdown_parts_know_their_headings_and_code_its_language(tiny):
    extraction = tiny.parts("# A\nx\n## B ##\ny\n```python\n# no heading\n```\nz\n# C\n", split_by="markdown")
    seen = [
        (part.fields["text"], part.fields["chunk_kind"], part.fields["heading_path"], part.fields.get("code_language"))
        for part in extraction.parts
    ]
    assert seen == [
        ("# A\nx\n", "section", ["A"], None),
        ("## B ##\ny\n", "section", ["A", "B"], None),
        ("```python\n# no heading\n```\n", "code", ["A", "B"], "python"),
        ("z\n", "section", ["A", "B"], None),
        ("# C\n", "section", ["C"], None),
    ]


def test_markdown_underlines_make_headings_but_rules_tables_and_front_matter_do_not():
    text = "---\ntitle: x\n---\nOne\n===\na\n\n---\n\nTwo\n---\n| a |\n---\n- b\n---\n"
    found = [(text[one.start : one.end], one.about["heading_path"]) for one in markdown.sections(text)]
    assert found == [
        ("---\ntitle: x\n---\n", []),
        ("One\n===\na\n\n---\n\n", ["One"]),
        ("Two\n---\n| a |\n---\n- b\n---\n", ["One", "Two"]),
    ]


def test_code_that_is_never_closed_goes_on_to_the_end():
    (before, code) = markdown.sections("a\n~~~~ sh\n```\nb\n~~~\n# c\n")
    assert before.end == code.start
    assert code.about == {"chunk_kind": "code", "heading_path": [], "code_language": "sh"}


@pytest.mark.parametrize("line", ["# " + " " * 200_000, "#" * 200_000, "`" * 200_000, "=" * 200_000, " " * 200_000])
def test_hostile_markdown_takes_no_longer_than_other_text(line):
    started = time.perf_counter()
    markdown.sections(f"a\n{line}\nb\n{line}")
    assert time.perf_counter() - started < 1


def test_truncate_keeps_the_beginning_and_counts_what_it_dropped(tiny):
    text = "on and on " * 30
    extraction = tiny.parts(text, oversize="truncate")
    (part,) = extraction.parts
    assert text.startswith(part.text)
    assert LIMIT - 2 <= part.tokens <= LIMIT
    assert part.fields["end_char"] == len(part.text)
    assert extraction.truncated_tokens > 60


def test_truncate_leaves_what_fits_alone(tiny):
    extraction = tiny.parts(" the end ", oversize="truncate")
    assert texts(extraction) == [" the end "]
    assert extraction.truncated_tokens == 0


def test_reject_names_tokens_and_limit(tiny):
    failure = refusal(tiny, "on and on " * 30, oversize="reject")
    assert failure.code == "TEXT_TOO_LONG"
    assert str(LIMIT) in failure.message
    assert failure.details["tokens"] > LIMIT
    assert texts(tiny.parts("the end", oversize="reject")) == ["the end"]


def test_one_cluster_longer_than_the_model_reads_is_cut_between_code_points(tiny):
    extraction = tiny.parts("a" + "\u0301" * 100)
    assert "".join(map(str, texts(extraction))) == "a" + "\u0301" * 100
    assert all(part.tokens <= LIMIT for part in extraction.parts)


def test_no_character_is_torn_from_its_marks_where_that_can_be_avoided(tiny):
    for cluster in ("👨‍👩‍👧", "🇩🇪", "👍🏽", "e\u0301", "\r\n"):
        for text in texts(tiny.parts("x" + cluster * 40)):
            rest = str(text).removeprefix("x").replace(cluster, "")
            assert not rest, (cluster, text)


def test_a_character_that_is_too_long_by_itself_fails_and_does_not_hang(tiny):
    fitter = Fitter(TextTokenizer(tiny.home_folder, "tiny"), "", 4)
    with pytest.raises(ObjectFailed, match="U\\+1F44D"):
        fitter.fit("a👍b", [chunking.Span(0, 3)])


@pytest.mark.parametrize("text", ["", " ", "\n\t\f", "\u200b\ufeff", "\u3000\u00a0"])
def test_text_that_shows_nothing_is_refused(tiny, text):
    assert refusal(tiny, text).code == "EMPTY_TEXT"


@pytest.mark.parametrize("text", [{"a": "b"}, [1, 2], True, [["a"]]])
def test_what_is_no_text_is_refused(tiny, text):
    assert refusal(tiny, text).code == "INPUT_NOT_TEXT"


def test_a_missing_input_is_refused(tiny):
    assert refusal(tiny, None).code == "INPUT_MISSING"
    with pytest.raises(ObjectFailed, match="no text"):
        tiny.extractor().parts(Source("obj_1", {"text": "elsewhere"}, {}))


def test_lists_of_texts_are_paragraphs_and_numbers_are_their_digits(tiny):
    assert texts(tiny.parts(["one", "two"])) == ["one\n\ntwo"]
    assert texts(tiny.parts(42)) == ["42"]
    assert refusal(tiny, []).code == "EMPTY_TEXT"


def test_more_parts_than_can_be_stored_are_refused_before_they_are_made(tiny):
    text = "a " * 60_000
    failure = refusal(tiny, text, split_by="characters", chunk_size=1)
    assert failure.code == "TOO_MANY_PARTS"
    failure = refusal(tiny, text * 4, split_by="characters", chunk_size=5_000, chunk_overlap=4_996)
    assert failure.code == "TOO_MANY_PARTS"


@pytest.mark.parametrize(
    "text", ["on and on. " * 10_000, "z" * 100_000, "漢" * 40_000, " " * 100_000 + "a", "x\n" * 50_000]
)
def test_long_texts_of_any_shape_are_split_in_a_moment(tiny, text):
    started = time.perf_counter()
    extraction = tiny.parts(text)
    assert time.perf_counter() - started < 10
    assert "".join(map(str, texts(extraction))) == text


def test_the_parts_of_a_text_do_not_depend_on_the_texts_before_it(tiny):
    text = "on and on " * 20 + "x漢é👍" * 60
    alone = tiny.extractor().parts(Source("obj_1", {}, {"text": text}))
    extractor = tiny.extractor()
    for other in ("a" * 5_000, "漢" * 300, " ".join("the end" for _ in range(900))):
        extractor.parts(Source("obj_2", {}, {"text": other}))
        assert extractor.parts(Source("obj_1", {}, {"text": text})) == alone
