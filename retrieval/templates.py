"""Templates in stage parameters: ``{{INPUT.query}}``, filled in one pass, values keeping their type.

    template := "{{" expression ("|" filter)* "}}"
    expression := path | function "(" arguments ")" | number | string
    path := root ("." key | "[" index "]")*

Roots are INPUT (inputs), DOC, CONTEXT, STAGE, SECRET, in any case. There are no attributes, no other calls
and no second pass: a value that holds ``{{`` is text. Single braces mean nothing.
"""

import math
import re
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import orjson

from domain.errors import Invalid
from domain.json_types import Json

_BRACES: Final = re.compile(r"\{\{(.*?)\}\}", re.DOTALL)
_TOKEN: Final = re.compile(
    r"\s*(?:(?P<number>-?\d+(?:\.\d+)?)|(?P<name>[A-Za-z_][A-Za-z0-9_]*)|(?P<string>'[^']*'|\"[^\"]*\")|(?P<mark>[.\[\]()|,=]))"
)
_ROOTS: Final = {
    "input": "INPUT", "inputs": "INPUT", "doc": "DOC", "context": "CONTEXT", "stage": "STAGE",
    "secret": "SECRET", "secrets": "SECRET",
}  # fmt: skip
_LONGEST: Final = 4_000


class TemplateWrong(Invalid):
    """A template is malformed or names something that does not exist."""

    code = "template_malformed"


class MissingInput(Invalid):
    """A template names an input that was not given."""

    code = "missing_input"


Names = Mapping[str, Json]
Clock = Callable[[], datetime]


def fill(value: Json, names: Names, *, clock: Clock, location: tuple[str | int, ...] = ()) -> Json:
    """Return a value with every template in it filled in.

    Args:
        names: root (INPUT, DOC, …) → what stands behind it; an absent root cannot be named.

    Raises:
        TemplateWrong: a template is malformed, or names an unknown root, function or filter.
        MissingInput: it names an input that is not there.
    """
    if isinstance(value, dict):
        return {key: fill(item, names, clock=clock, location=(*location, key)) for key, item in value.items()}
    if isinstance(value, list):
        return [fill(item, names, clock=clock, location=(*location, index)) for index, item in enumerate(value)]
    if not isinstance(value, str) or "{{" not in value:
        return value
    whole = _BRACES.fullmatch(value.strip())
    if whole is not None and "{{" not in whole[1]:
        return _Expression(whole[1], names, clock, location).evaluate()

    def render(match: re.Match[str]) -> str:
        return _render(_Expression(match[1], names, clock, location).evaluate())

    return _BRACES.sub(render, value)


def paths_used(value: Json) -> Iterator[tuple[str, str]]:
    """Yield root and first key of every path in the templates of a value, for checks at creation.

    Raises:
        TemplateWrong: a template is malformed.
    """
    if isinstance(value, dict):
        for item in value.values():
            yield from paths_used(item)
    elif isinstance(value, list):
        for item in value:
            yield from paths_used(item)
    elif isinstance(value, str):
        for match in _BRACES.finditer(value):
            expression = _Expression(match[1], None, lambda: datetime.now(UTC), ())
            expression.evaluate()
            yield from expression.used


class _Expression:
    """A recursive-descent reader of one template. Without names it only checks and collects what is named."""

    def __init__(self, text: str, names: Names | None, clock: Clock, location: tuple[str | int, ...]) -> None:
        self._tokens = self._tokenise(text, location)
        self._at = 0
        self._text = text
        self._names = names
        self._clock = clock
        self._location = location
        self.used: list[tuple[str, str]] = []

    def evaluate(self) -> Json:
        """Return the value of the template."""
        value = self._value()
        while self._accept("|"):
            value = self._filtered(value)
        if self._at != len(self._tokens):
            raise self._wrong("something stands after its end")
        return value

    def _tokenise(self, text: str, location: tuple[str | int, ...]) -> list[tuple[str, str]]:
        tokens, position = [], 0
        stripped = text.rstrip()
        if len(text) > _LONGEST:
            raise TemplateWrong("A template is longer than 4,000 characters.", location=location)
        while position < len(stripped):
            match = _TOKEN.match(stripped, position)
            if match is None:
                message = f"The template {{{{{text[:80]}}}}} is malformed at {stripped[position : position + 10]!r}."
                raise TemplateWrong(message, location=location)
            kind = match.lastgroup or ""
            tokens.append((kind, match[kind]))
            position = match.end()
        return tokens

    def _wrong(self, why: str) -> TemplateWrong:
        return TemplateWrong(f"The template {{{{{self._text[:80]}}}}} is malformed: {why}.", location=self._location)

    def _peek(self) -> tuple[str, str]:
        return self._tokens[self._at] if self._at < len(self._tokens) else ("end", "")

    def _next(self) -> tuple[str, str]:
        token = self._peek()
        self._at += 1
        return token

    def _accept(self, mark: str) -> bool:
        if self._peek() == ("mark", mark):
            self._at += 1
            return True
        return False

    def _expect(self, mark: str) -> None:
        if not self._accept(mark):
            raise self._wrong(f"{mark!r} is missing")

    def _value(self) -> Json:
        kind, text = self._next()
        if kind == "number":
            return float(text) if "." in text else int(text)
        if kind == "string":
            return text[1:-1]
        if kind != "name":
            raise self._wrong("a name is missing")
        if text in {"true", "false"}:
            return text == "true"
        return self._call(text) if self._accept("(") else self._path(text)

    def _path(self, root: str) -> Json:
        canonical = _ROOTS.get(root.lower())
        if canonical is None:
            known = "INPUT, DOC, CONTEXT, STAGE, SECRET"
            message = f"The template names {root[:60]!r}; it may name {known}."
            raise TemplateWrong(message, location=self._location, code="unknown_template_name")
        keys: list[str | int] = []
        while True:
            if self._accept("."):
                kind, text = self._next()
                if kind not in {"name", "number"} or text.startswith("__"):
                    raise self._wrong("a key must follow the dot")
                keys.append(text)
            elif self._accept("["):
                kind, text = self._next()
                keys.append(
                    int(text) if kind == "number" and "." not in text else text[1:-1] if kind == "string" else text
                )
                self._expect("]")
            else:
                break
        self.used.append((canonical, str(keys[0]) if keys else ""))
        return None if self._names is None else self._follow(canonical, keys)

    def _follow(self, root: str, keys: list[str | int]) -> Json:
        assert self._names is not None
        found: Any = self._names.get(root)
        for key in keys:
            if isinstance(found, dict) and str(key) in found:
                found = found[str(key)]
            elif isinstance(found, list) and isinstance(key, int) and -len(found) <= key < len(found):
                found = found[key]
            elif root == "INPUT":
                message = f"The input {'.'.join(map(str, keys))!r} was not given."
                raise MissingInput(message, location=("body", "inputs", str(keys[0])))
            else:
                return None
        return found  # type: ignore[no-any-return]

    def _call(self, name: str) -> Json:
        positional: list[Json] = []
        named: dict[str, Json] = {}
        while not self._accept(")"):
            following = self._tokens[self._at + 1] if self._at + 1 < len(self._tokens) else ("", "")
            if self._peek()[0] == "name" and following == ("mark", "="):
                key = self._next()[1]
                self._expect("=")
                named[key] = self._value()
            else:
                positional.append(self._value())
            if not self._accept(",") and self._peek() != ("mark", ")"):
                raise self._wrong("a bracket is not closed")
        function = _FUNCTIONS.get(name)
        if function is None:
            message = f"The template calls {name[:60]!r}; it may call {', '.join(sorted(_FUNCTIONS))}."
            raise TemplateWrong(message, location=self._location, code="unknown_template_function")
        if self._names is None:
            return None
        try:
            return function(self._clock, positional, named)
        except (TypeError, ValueError, KeyError, OverflowError, IndexError) as error:
            raise self._wrong(f"{name} cannot be called so") from error

    def _filtered(self, value: Json) -> Json:
        kind, name = self._next()
        arguments: list[Json] = []
        if kind != "name" or name not in _FILTERS:
            message = f"The template has the filter {name[:60]!r}; there are {', '.join(sorted(_FILTERS))}."
            raise TemplateWrong(message, location=self._location, code="unknown_template_filter")
        if self._accept("("):
            while not self._accept(")"):
                arguments.append(self._value())
                if not self._accept(",") and self._peek() != ("mark", ")"):
                    raise self._wrong("a bracket is not closed")
        if self._names is None:
            return None
        try:
            return _FILTERS[name](value, arguments)
        except (TypeError, ValueError, IndexError) as error:
            raise self._wrong(f"the filter {name} does not fit the value") from error


def _render(value: Json) -> str:
    if isinstance(value, str):
        return value
    return "" if value is None else orjson.dumps(value).decode()


def _numbers(values: list[Json]) -> list[float]:
    flat = values[0] if len(values) == 1 and isinstance(values[0], list) else values
    if not all(isinstance(item, int | float) for item in flat):
        raise TypeError("numbers are needed")
    return list(flat)  # type: ignore[arg-type]


def _time(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _ago(named: Mapping[str, Json]) -> timedelta:
    allowed = {"days", "hours", "minutes", "seconds", "weeks"}
    if not named or not set(named) <= allowed:
        raise ValueError("say minutes=5, for instance")
    return timedelta(**{key: float(str(value)) for key, value in named.items()})


_FUNCTIONS: Final[dict[str, Callable[[Clock, list[Json], dict[str, Json]], Json]]] = {
    "max": lambda _clock, given, _named: max(_numbers(given)),
    "min": lambda _clock, given, _named: min(_numbers(given)),
    "abs": lambda _clock, given, _named: abs(_numbers(given)[0]),
    "round": lambda _clock, given, _named: round(
        _numbers(given)[0], int(_numbers(given)[1]) if len(given) > 1 else None
    ),
    "ceil": lambda _clock, given, _named: math.ceil(_numbers(given)[0]),
    "floor": lambda _clock, given, _named: math.floor(_numbers(given)[0]),
    "utc_now": lambda clock, _given, _named: _time(clock()),
    "time_ago": lambda clock, _given, named: _time(clock() - _ago(named)),
}


def _slug(text: str) -> str:
    return re.sub(r"[^\w]+", "-", text.casefold()).strip("-")


def _map(value: Json, arguments: list[Json]) -> Json:
    key = str(arguments[0])
    return [item.get(key) if isinstance(item, dict) else None for item in _list(value)]


def _list(value: Json) -> list[Json]:
    if not isinstance(value, list):
        raise TypeError("a list is needed")
    return value


_FILTERS: Final[dict[str, Callable[[Json, list[Json]], Json]]] = {
    "first": lambda value, _: _list(value)[0] if _list(value) else None,
    "last": lambda value, _: _list(value)[-1] if _list(value) else None,
    "map": _map,
    "join": lambda value, arguments: (str(arguments[0]) if arguments else "").join(
        _render(item) for item in _list(value)
    ),
    "length": lambda value, _: len(value) if isinstance(value, str | list | dict) else 0,
    "slugify": lambda value, _: _slug(_render(value)),
    "bool": lambda value, _: value.strip().lower() in {"true", "1", "yes"} if isinstance(value, str) else bool(value),
    "tojson": lambda value, _: orjson.dumps(value).decode(),
}
