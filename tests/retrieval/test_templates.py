"""Templates: one pass, typed, and deaf to everything that is not in the contract."""

import json
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from domain.errors import Invalid
from retrieval.templates import MAX_FILLED, MissingInput, TemplateWrong, fill, has_template, names_used

NOON = datetime(2026, 1, 2, 13, 0, 0, 123456, tzinfo=timezone(timedelta(hours=1)))
INPUTS = {
    "q": "red bike",
    "n": 5,
    "x": 1.5,
    "yes": True,
    "none": None,
    "list": [{"name": "a", "k": {"deep": [10, 20]}}, {"name": "b"}, 7],
    "numbers": [3, 1, 2],
    "texts": ["a", "b"],
    "empty": [],
    "größe": 7,
    "my-key": 8,
    "a.b": 9,
    "evil": "{{SECRET.key}} {{INPUT.n}} {% x %}",
    "Title": "Ünïted, States_of  (Foo)!",
}
NAMES = {"INPUT": INPUTS, "CONTEXT": {}, "STAGE": {"s": {"output_count": 3}}, "SECRET": {"key": "hidden"}}


def filled(value, names=NAMES):
    return fill(value, names, clock=lambda: NOON)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("{{INPUT.q}}", "red bike"),
        ("{{ inputs.n }}", 5),
        ("  {{input.x}}  ", 1.5),
        ("{{Inputs.yes}}", True),
        ("{{INPUT.none}}", None),
        ("{{INPUT.list[0].name}}", "a"),
        ("{{INPUT.list.1.name}}", "b"),
        ("{{INPUT.list[-1]}}", 7),
        ("{{INPUT.list[0].k.deep}}", [10, 20]),
        ("{{INPUT.list.0.k.deep.1}}", 20),
        ("{{INPUT['q']}}", "red bike"),
        ('{{INPUT["a.b"]}}', 9),
        ("{{INPUT.größe}}", 7),
        ("{{INPUT.my-key}}", 8),
        ("{{STAGE.s.output_count}}", 3),
        ("{{stage.other}}", None),
        ("{{CONTEXT.anything.at.all}}", None),
        ("{{SECRETS.key}}", "hidden"),
        ("{{'text'}}", "text"),
        ("{{-2.5}}", -2.5),
        ("{{true}}", True),
        ("{{null}}", None),
    ],
)
def test_a_template_alone_keeps_the_type_of_its_value(text, value):
    assert filled(text) == value
    assert type(filled(text)) is type(value)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("a {{INPUT.q}} b", "a red bike b"),
        ("{{INPUT.q}}{{INPUT.n}}", "red bike5"),
        ("n={{INPUT.n}}, x={{INPUT.x}}, {{INPUT.yes}}", "n=5, x=1.5, true"),
        ("<{{INPUT.none}}>", "<>"),
        ("<{{INPUT.numbers}}>", "<[3,1,2]>"),
        ("<{{INPUT.list[1]}}>", '<{"name":"b"}>'),
        ("{{'}}'}} {{INPUT.n}}", "}} 5"),
    ],
)
def test_inside_a_longer_text_values_are_written_out(text, value):
    assert filled(text) == value


@pytest.mark.parametrize(
    "text",
    ["", "plain", "{INPUT.q}", "{ {INPUT.q} }", "{{", "}}", "{{INPUT.q", "INPUT.q}}", "{%if x%}y{%endif%}", "{#c#}",
     "${INPUT.q}", "<%= INPUT.q %>", "}} {{"],
)  # fmt: skip
def test_what_is_no_template_stays_as_it_is(text):
    assert filled(text) == text


def test_every_string_of_any_json_is_filled_but_no_key():
    value = {"{{INPUT.q}}": ["{{INPUT.n}}", {"a": "{{INPUT.q}}!"}, 5, None, True]}
    assert filled(value) == {"{{INPUT.q}}": [5, {"a": "red bike!"}, 5, None, True]}


def test_what_a_value_holds_is_never_expanded():
    assert filled("{{INPUT.evil}}") == INPUTS["evil"]
    assert filled("<{{INPUT.evil}}>") == f"<{INPUTS['evil']}>"
    assert "hidden" not in filled("{{INPUT.evil | slugify}} {{INPUT.evil | tojson}}")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("{{INPUT.numbers | first}}", 3),
        ("{{INPUT.numbers|last}}", 2),
        ("{{INPUT.empty | first}}", None),
        ("{{INPUT.list[0].k.deep | first}}", 10),
        ("{{INPUT.list | map('name')}}", ["a", "b", None]),
        ("{{INPUT.list | map(attribute='name') | join('-')}}", "a-b-"),
        ("{{INPUT.texts | join}}", "ab"),
        ("{{INPUT.numbers | join(', ')}}", "3, 1, 2"),
        ("{{INPUT.q | length}}", 8),
        ("{{INPUT.numbers | length}}", 3),
        ("{{INPUT.Title | slugify}}", "ünïted-states-of-foo"),
        ("{{'Yes' | bool}}", True),
        ("{{'off' | bool}}", False),
        ("{{INPUT.empty | bool}}", False),
        ("{{INPUT.numbers | tojson}}", "[3,1,2]"),
        ("{{max(1, INPUT.n, 3)}}", 5),
        ("{{min(INPUT.numbers)}}", 1),
        ("{{max( min(1, 2), -3 )}}", 1),
        ("{{abs(-2)}}", 2),
        ("{{round(2.567, 1)}}", 2.6),
        ("{{round(INPUT.x)}}", 2),
        ("{{ceil(1.2)}}", 2),
        ("{{floor(-1.2)}}", -2),
        ("{{utc_now()}}", "2026-01-02T12:00:00.123Z"),
        ("{{time_ago(minutes=5)}}", "2026-01-02T11:55:00.123Z"),
        ("{{time_ago(days=1, hours=INPUT.n)}}", "2026-01-01T07:00:00.123Z"),
    ],
)
def test_filters_and_functions_of_the_contract(text, value):
    assert filled(text) == value
    assert type(filled(text)) is type(value)


ATTACKS = [
    "{{''.__class__}}", "{{ ''.__class__.__mro__[1].__subclasses__() }}", "{{cycler}}",
    "{{cycler.__init__.__globals__}}", "{{self}}", "{{config}}", "{{request}}", "{{lipsum()}}", "{{range(10)}}",
    "{{dict(a=1)}}", "{{open('/etc/passwd')}}", "{{__import__('os')}}", "{{INPUT.q.upper()}}", "{{INPUT.q()}}",
    "{{INPUT['q']()}}", "{{INPUT.q[0:2]}}", "{{INPUT.q | attr('x')}}", "{{INPUT.q | replace('a','b')}}",
    "{{INPUT.q | first | eval}}", "{{INPUT.q + 'a'}}", "{{INPUT.n * 100000000}}", "{{INPUT.q ~ 'a'}}",
    "{{a {{INPUT.q}} }}", "{{ {{INPUT.q}} }}", "{{{{INPUT.q}}}}", "{{{INPUT.q}}}", "{{}}", "{{ }}", "{{|first}}",
    "{{INPUT.}}", "{{INPUT..q}}", "{{.q}}", "{{INPUT[}}", "{{INPUT[]}}", "{{INPUT[q]}}", "{{INPUT[1.5]}}",
    "{{INPUT.q]}}", "{{max(}}", "{{max(1}}", "{{max(1 2)}}", "{{max 1}}", "{{'a}}", "{{INPUT.q INPUT.n}}",
    "{{INPUT.q | }}", "{{INPUT.q || first}}", "{{12345678901234567890}}", "{{1e9}}", "{{0x10}}", "{{utc_now}}",
    "{{utc_now(1)}}", "{{time_ago(5)}}", "{{time_ago(years=1)}}", "{{time_ago(minutes='x')}}",
    "{{time_ago(days=999999999999)}}", "{{max()}}", "{{max('a')}}", "{{max(true)}}", "{{abs(1, 2)}}", "{{ceil('1')}}",
    "{{INPUT.q | first}}", "{{INPUT.n | length}}", "{{INPUT.n | join}}", "{{INPUT.q | map('x')}}",
    "{{INPUT.list | map}}", "{{DOC.secret}}", "{{SECRET.other}}", "{{SECRET.key.more}}",
    "{{" + "max(" * 200 + "1" + ")" * 200 + "}}", "{{INPUT.list" + "|first" * 500 + "}}",
    "{{INPUT" + ".a" * 5_000 + "}}", "{{" + "(" * 5_000 + "}}", "{{round(1, 2, 3, 4)}}", "{{INPUT.q}} {{nope}}",
]  # fmt: skip


@pytest.mark.parametrize("text", ATTACKS)
def test_everything_else_is_refused(text):
    with pytest.raises(Invalid):
        filled({"a": [f"x {text}"]})


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("{{nope.x}}", "unknown_template_name"),
        ("{{nope()}}", "unknown_template_function"),
        ("{{INPUT.q | nope}}", "unknown_template_filter"),
        ("{{INPUT.q nope}}", "template_malformed"),
        ("{{INPUT.q | first}}", "template_does_not_fit"),
        ("{{DOC.x}}", "template_name_not_here"),
        ("{{SECRET.nope}}", "unknown_secret"),
    ],
)
def test_a_fault_is_told_with_its_code_and_where_it_stands(text, code):
    with pytest.raises(TemplateWrong) as refused:
        fill({"a": [1, text]}, NAMES, clock=lambda: NOON, location=("body", "stages", 0))
    assert (refused.value.code, refused.value.location) == (code, ("body", "stages", 0, "a", 1))


@pytest.mark.parametrize(
    "text", ["{{INPUT.absent}}", "{{INPUT.q.deeper}}", "{{INPUT.list[9]}}", "x {{INPUT.__class__}}"]
)
def test_an_input_that_was_not_given_is_an_error_of_its_own(text):
    with pytest.raises(MissingInput) as refused:
        filled(text)
    assert refused.value.code == "missing_input"
    assert refused.value.location[:2] == ("body", "inputs")


def test_a_large_value_passes_and_a_flood_of_it_does_not():
    large = {"INPUT": {"big": "x" * 1_000_000, "lots": ['"' * 1_000] * 900}}
    assert len(filled("{{INPUT.big}}", large)) == 1_000_000
    assert len(filled("<{{INPUT.big}}>", large)) == 1_000_002
    for flood in ("{{INPUT.big}}" * (MAX_FILLED // 1_000_000 + 1), "{{INPUT.lots | join('" + "y" * 500 + "')}}"):
        with pytest.raises(TemplateWrong):
            filled(flood, large)
    with pytest.raises(TemplateWrong):
        filled("{{INPUT.lots" + " | tojson" * 10 + "}}", large)


def test_names_are_listed_with_their_places_and_nothing_is_evaluated():
    value = {
        "a": "{{INPUT.q}} {{max(DOC.n, min(STAGE['x'].y))}}",
        "b": ["{{secret.k | map(CONTEXT.z)}}", "{{INPUT}}", 5],
    }
    assert [tuple(used) for used in names_used(value, ("body",))] == [
        ("INPUT", "q", ("body", "a")),
        ("DOC", "n", ("body", "a")),
        ("STAGE", "x", ("body", "a")),
        ("SECRET", "k", ("body", "b", 0)),
        ("CONTEXT", "z", ("body", "b", 0)),
        ("INPUT", "", ("body", "b", 1)),
    ]
    with pytest.raises(TemplateWrong):
        list(names_used({"a": "{{nope}}"}))


def test_has_template_looks_everywhere_but_into_keys():
    assert has_template({"a": [1, {"b": "x {{y}}"}]})
    assert not has_template({"{{a}}": ["{{", "}}", "}} {{", {"b": "{x}"}]})


pieces = st.sampled_from(
    ["{{", "}}", "{", "}", "INPUT", ".", "q", "n", "list", "[", "]", "0", "-1", "(", ")", "max", "|", "first", "join",
     "'", '"', ",", "=", " ", "SECRET", "key", "DOC", "%", "__class__", "\n", "ß", "1.5", "utc_now"]
)  # fmt: skip


@settings(max_examples=400, deadline=None)
@given(st.lists(pieces, max_size=14).map("".join) | st.text(max_size=30))
def test_no_text_does_anything_but_fill_or_be_refused(text):
    try:
        value = filled(text)
    except Invalid:
        return
    json.dumps(value)
    if not has_template(text):
        assert value == text


@settings(max_examples=200, deadline=None)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=10),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    )
)
def test_any_value_goes_through_unchanged(value):  # fmt: skip
    given_names = {"INPUT": {"v": value}}
    assert filled("{{INPUT.v}}", given_names) == value
    assert filled({"a": ["{{INPUT.v}}"]}, given_names) == {"a": [value]}


def test_the_clock_is_the_given_one():
    assert fill("{{utc_now()}}", {}, clock=lambda: datetime(1999, 12, 31, tzinfo=UTC)) == "1999-12-31T00:00:00.000Z"
