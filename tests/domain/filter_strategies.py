"""Documents and filters that meet each other often, full of what databases stumble over."""

from hypothesis import strategies as st

from domain.filters import parse

KEYS = [
    "a", "b", "a.b", "b.a", "metadata", "metadata.a", "x", "", "0", "-1", "$", "$.a", "#", "*", "'", '"', 'a"b', "a'b",
    "--", "; DROP TABLE d", "[0]", "a[0]", "\\", "a\\", "%", "_", ":a", "?", "{a}", "ß", "名", "\U0001f600", " ",
    "\n", "\x01", "\x7f", "true", "null", "strict $",
]  # fmt: skip
TEXTS = [
    "", "a", "A", "ab", "AB", "b", "5", "5.0", "05", "1e2", "-0", "true", "false", "True", "null", "ß", "ss", "SS",
    "straße", "STRASSE", "İ", "i̇", "\u0131", "Σ", "ς", "é", "e\u0301", "名", "\uffff", "\U0001f600", "\U00010000", "%",
    "_", "a%b", "\\", "'", '"', "--", "{{INPUT.a}}", " ", "\n", "\x01", "$", "Z", "z", "٣",
]  # fmt: skip
NUMBERS = [
    0, 1, -1, 5, 5.0, 0.1, 0.30000000000000004, -0.0, 100, 1e2, 2**53, 2**53 + 1, float(2**53), 2**63 - 1, -(2**63),
    2**64 - 1, 1e308, -1e308, 5e-324, 2.2250738585072014e-308,
]  # fmt: skip

keys = st.sampled_from(KEYS)
texts = st.sampled_from(TEXTS) | st.text(st.characters(codec="utf-8", exclude_characters="\x00"), max_size=4)
numbers = st.sampled_from(NUMBERS) | st.integers(-3, 3) | st.floats(allow_nan=False, allow_infinity=False)
scalars = st.none() | st.booleans() | numbers | texts
values = st.recursive(
    scalars | st.lists(scalars, max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3),
    max_leaves=6,
)
documents = st.dictionaries(keys, values, max_size=6)

usual = st.sampled_from(["a", "b", "a.b", "metadata.a", "metadata.x"])
paths = (st.lists(keys, min_size=1, max_size=3).map(".".join) | usual).filter(bool)


@st.composite
def _conditions(draw):
    operator = draw(
        st.sampled_from(["eq", "ne", "gt", "lt", "gte", "lte", "in", "nin", "contains", "exists", "is_null"])
    )
    if operator in {"in", "nin"}:
        value = draw(st.lists(scalars, max_size=4))
    elif operator in {"exists", "is_null"}:
        value = draw(st.booleans())
    elif operator in {"eq", "ne"}:
        value = draw(scalars)
    else:
        value = draw(numbers | texts | st.booleans())
    condition = {"field": draw(paths), "operator": operator, "value": value}
    return condition if draw(st.booleans()) else {**condition, "case_sensitive": draw(st.booleans())}


raw_conditions = _conditions()
raw_filters = st.recursive(
    raw_conditions,
    lambda inner: st.dictionaries(
        st.sampled_from(["AND", "OR", "NOT"]), st.lists(inner, max_size=3), min_size=1, max_size=2
    ),
    max_leaves=4,
).filter(bool)
filters = raw_filters.map(parse).filter(lambda parsed: parsed is not None)
