"""HTML: what a reader sees, in order, and nothing else."""

import pytest

from domain.errors import ObjectFailed
from extractors.reading import read


def text_of(body: str, head: str = "") -> str:
    return read(f"<!doctype html><html><head>{head}</head><body>{body}</body></html>".encode()).text


def test_headings_paragraphs_lists_tables_and_code_become_markdown():
    found = text_of(
        "<h1>Bolts</h1><p>All prices\n in <b>eu</b>ro.</p>"
        "<ul><li>steel<li><p>brass</p><ul><li>old</ul></ul><ol start=3><li>three<li>four</ol>"
        "<table><tr><th>Item<th>Price<tr><td>M4<td>0.05</table>"
        '<pre><code class="language-py">if x:\n    y</code></pre><h2>More</h2>one<br>two'
    )
    assert found == (
        "# Bolts\n\nAll prices in euro.\n\n- steel\n- brass\n  - old\n3. three\n4. four\n\n"
        "| Item | Price |\n| M4 | 0.05 |\n\n```py\nif x:\n    y\n```\n\n## More\n\none\ntwo"
    )


def test_headings_and_code_have_their_places():
    found = read(b"<html><h1>A</h1><p>x<h2>B <i>b</i></h2><pre># no heading</pre><h3>C</h3>end")
    shown = [(found.text[one.start :].split("\n")[0], one.level, one.title) for one in found.layout.headings]
    assert shown == [("# A", 1, "A"), ("## B b", 2, "B b"), ("### C", 3, "C")]
    [code] = found.layout.code
    assert found.text[code.start : code.end] == "```\n# no heading\n```"


@pytest.mark.parametrize(
    "hidden",
    [
        "<script>no</script>",
        "<style>no</style>",
        "<template>no</template>",
        "<!-- no -->",
        "<p hidden>no</p>",
        '<div style="color: red; display : none">no<p>no</p></div>',
        '<span style="visibility:hidden">no</span>',
        "<dialog>no</dialog>",
        "<noscript>no</noscript>",
        '<input type="hidden" value="no">',
    ],
)
def test_what_a_browser_does_not_show_is_left_out_and_what_follows_is_not(hidden):
    assert text_of(f"before {hidden} after").split() == ["before", "after"]


@pytest.mark.parametrize(
    "shown",
    [
        "<nav>seen</nav>",
        "<footer>seen</footer>",
        "<aside>seen</aside>",
        "<details><summary>x</summary>seen</details>",
        "<button>seen</button>",
        '<input value="seen">',
        '<img alt="seen">',
        "<dl><dt>x</dt><dd>seen</dd></dl>",
        "<textarea>seen</textarea>",
        "<select><option>seen</select>",
        '<p aria-hidden="true">seen</p>',
        "<figure><figcaption>seen</figcaption></figure>",
        "<table><caption>seen</caption><tr><td>x</table>",
        "<unknown-element>seen</unknown-element>",
        "<svg><text>seen</text></svg>",
    ],
)
def test_what_a_browser_shows_is_kept_wherever_it_stands(shown):
    assert "seen" in text_of(f"<p>before</p>{shown}<p>after</p>")


def test_repeated_text_stays_repeated():
    assert text_of("<p>Call 112.</p><p>Call 112.</p>") == "Call 112.\n\nCall 112."


def test_a_table_that_arranges_a_page_gives_its_headings_and_paragraphs():
    found = text_of("<table><tr><td><h2>News</h2><p>One</p><p>Two</p></td><td>Side</td></tr></table>")
    assert found == "## News\n\nOne\n\nTwo\n\nSide"


def test_the_title_names_a_page_without_a_first_heading_and_is_not_repeated_before_one():
    assert text_of("<p>x", "<title>Name</title>") == "# Name\n\nx"
    assert text_of("<h1>Real</h1>x", "<title>Real - Site</title>") == "# Real\n\nx"


@pytest.mark.parametrize(
    ("raw", "content_type"),
    [
        ("<html>Grüße".encode(), ""),
        ("<html>Grüße".encode("cp1252"), ""),
        ("<html>Grüße".encode("latin-1"), "text/html; charset=ISO-8859-1"),
        ('<html><meta charset="iso-8859-1">Grüße'.encode("latin-1"), "text/html"),
        ("\ufeff<html>Grüße".encode("utf-16-le"), ""),
        ("\ufeff<html>Grüße".encode(), "text/html; charset=latin-1"),
        ("<html>Grüße".encode(), "text/html; charset=no-such-thing"),
        ("<html>Grüße".encode(), "text/html; charset=utf-16"),
    ],
)
def test_every_declared_and_undeclared_encoding_is_read(raw, content_type):
    assert read(raw, "text", content_type).text == "Grüße"


@pytest.mark.parametrize("raw", [b"<html></html>", b"<html><script>x()</script>", b"<html><body><img src=x>"])
def test_a_page_without_text_says_so(raw):
    with pytest.raises(ObjectFailed) as caught:
        read(raw)
    assert caught.value.code == "HTML_WITHOUT_TEXT"


def test_a_page_nested_deeper_than_the_parser_goes_fails_and_is_not_cut():
    assert len(read(b"<html>" + b"<div>x" * 1_000).text.split()) == 1_000
    with pytest.raises(ObjectFailed) as caught:
        read(b"<html>" + b"<div>x" * 100_000)
    assert caught.value.code == "HTML_BROKEN"


def test_more_text_than_is_stored_is_refused(monkeypatch):
    monkeypatch.setattr("extractors.reading.layout.MOST_CHARACTERS", 50)
    with pytest.raises(ObjectFailed) as caught:
        read(b"<html>" + b"<p>ten chars." * 10)
    assert caught.value.code == "TOO_LARGE"


def test_code_that_holds_fences_is_fenced_by_longer_ones():
    assert text_of("<pre>```\nx\n```</pre>") == "````\n```\nx\n```\n````"


@pytest.mark.parametrize(
    ("text", "encoding", "content_type"),
    [
        ("<html><meta charset=iso-8859-1>“Price” of 5 €", "cp1252", ""),
        ("<html><meta charset=gb2312>朱镕基", "gbk", ""),
        ("<html>Цена", "cp1251", "text/html; charset=windows-1251"),
        ("<html><meta http-equiv='Content-Type' content='text/html; charset=shift_jis'>①日本語", "cp932", "text/html"),
        ("<?xml version='1.0' encoding='koi8-r'?><html>Цена", "koi8-r", "application/xhtml+xml"),
        ("<html>Привет, мир", "utf-16-le", ""),
        ("<html>Привет, мир", "utf-16-be", "text/html; charset=utf-16"),
        ("<html><meta charset=utf-16le>plain", "ascii", ""),
        (r"<html>C:\new", "ascii", "text/html; charset=unicode_escape"),
        ("<html>a-b", "ascii", "text/html; charset=punycode"),
    ],
)
def test_names_of_encodings_mean_what_they_mean_to_browsers(text, encoding, content_type):
    assert read(text.encode(encoding), "text", content_type).text == text.rpartition(">")[2]


@pytest.mark.parametrize(
    ("raw", "content_type"),
    [
        ('<html><meta charset="utf-8">Grüße aus Köln'.encode() + b"\xff", ""),
        (b"\xef\xbb\xbf<html>a\xffb", ""),
        ("\ufeff<html>abc".encode("utf-16-le") + b"x", ""),
        ("<html>日本語のページ".encode("shift_jis"), ""),
        ("<html>日本語のページ".encode("euc-jp"), "text/html"),
        ("<html>Цена".encode("cp1251"), "text/html; charset=no-such-thing"),
    ],
    ids=["a wrong byte", "a wrong byte after a mark", "half a character", "Shift JIS", "EUC-JP", "Cyrillic"],
)
def test_characters_that_would_come_out_wrong_fail_the_page(raw, content_type):
    with pytest.raises(ObjectFailed) as caught:
        read(raw, "text", content_type)
    assert caught.value.code == "NOT_UTF8"
    assert "Save it as UTF-8" in caught.value.message


@pytest.mark.parametrize(
    "page",
    [
        "<html><body>one</body></html>two<p>three",
        "<!doctype html><html><body>one</body></html>\n<div>two</div><p>three</p>",
        "<html><body>one</body></html><html><body>two<p>three</body></html>",
    ],
)
def test_what_stands_after_the_end_of_a_page_is_read_as_browsers_show_it(page):
    assert read(page.encode()).text == "one\n\ntwo\n\nthree"
