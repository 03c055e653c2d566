"""Templates in stage parameters: ``{{INPUT.query}}``, filled in one pass, values keeping their type.

    text       := (characters | "{{" expression "}}")*
    expression := value ("|" name ["(" arguments ")"])*
    value      := number | string | true | false | null | path | name "(" arguments ")"
    arguments  := [argument ("," argument)*]      argument := [name "="] value
    path       := root ("." key | "[" index or string "]")*

Roots are INPUT (inputs), DOC, CONTEXT, STAGE and SECRET, in any case. Paths follow keys of objects and indexes
of lists, never attributes; calls are those of `retrieval.template_calls`. There is no second pass: a value that
holds ``{{`` is text. Single braces mean nothing, and neither does ``{{`` that nothing closes.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Final, NamedTuple, NoReturn, TypeAlias

from domain.errors import Invalid
from domain.json_types import Json, is_vector
from retrieval.template_calls import FILTERS, FUNCTIONS, MAX_TEXT, Clock, render

Location: TypeAlias = tuple[str | int, ...]
Names: TypeAlias = Mapping[str, Json]

MAX_FILLED: Final = 4 * MAX_TEXT
_LONGEST: Final = 4_000
_DEEPEST: Final = 8
_MOST_FILTERS: Final = 20
_ROOTS: Final = {
    "input": "INPUT",
    "inputs": "INPUT",
    "doc": "DOC",
    "context": "CONTEXT",
    "stage": "STAGE",
    "secret": "SECRET",
    "secrets": "SECRET",
}
_CONSTANTS: Final[Mapping[str, Json]] = {
    "true": True, "false": False, "null": None, "none": None, "True": True, "False": False, "None": None,
}  # fmt: skip
_KEY: Final = re.compile(r"[\w-]+")
_NAME: Final = re.compile(r"[^\W\d]\w*")
_NUMBER: Final = re.compile(r"-?[0-9]{1,15}(\.[0-9]{1,15})?(?!\w)")
_STRING: Final = re.compile(r"'([^']*)'|\"([^\"]*)\"")


class TemplateWrong(Invalid):
    """A template is malformed or names something that does not exist."""

    code = "template_malformed"


class MissingInput(Invalid):
    """A template names an input that was not given."""

    code = "missing_input"


class NameUsed(NamedTuple):
    """A path that a template follows: its root (INPUT, DOC, …), the first key after it, and where it is written."""

    root: str
    key: str
    location: Location


def fill(value: Json, names: Names, *, clock: Clock, location: Location = ()) -> Json:
    """Return a value with every template in its strings filled in; keys of objects are left as they are.

    Args:
        value: any JSON; it is not changed.
        names: root (INPUT, DOC, …) → what stands behind it; an absent root cannot be named.
        clock: tells the time to ``utc_now`` and ``time_ago``.
        location: where the value was written, for messages.

    Raises:
        TemplateWrong: a template is malformed, names an unknown root, function, filter or secret, does not fit
            its values, or the texts become longer than 4 million characters.
        MissingInput: it names an input that is not there.
    """
    return _Filling(names, clock).fill(value, location)


def names_used(value: Json, location: Location = ()) -> Iterator[NameUsed]:
    """Yield every path that the templates of a value follow, in the order they are written.

    Raises:
        TemplateWrong: a template is malformed, or names an unknown root, function or filter.
    """
    if isinstance(value, dict):
        for key, item in value.items():
            yield from names_used(item, (*location, key))
    elif isinstance(value, list) and not is_vector(value):
        for index, item in enumerate(value):
            yield from names_used(item, (*location, index))
    elif isinstance(value, str):
        for part in _parsed(value, location):
            if not isinstance(part, str):
                for path in _paths(part):
                    yield NameUsed(path.root, str(path.keys[0]) if path.keys else "", location)


def has_template(value: Json) -> bool:
    """Say whether there is a template, even a malformed one, anywhere in a value."""
    if isinstance(value, dict):
        return any(map(has_template, value.values()))
    if isinstance(value, list) and not is_vector(value):
        return any(map(has_template, value))
    return isinstance(value, str) and "}}" in value.partition("{{")[2]


@dataclass(frozen=True, slots=True)
class _Constant:
    value: Json


@dataclass(frozen=True, slots=True)
class _Path:
    root: str
    keys: tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class _Call:
    """A function call, or a filter's: then what is filtered comes first."""

    name: str
    is_filter: bool
    given: tuple["_Node", ...] = ()
    named: tuple[tuple[str, "_Node"], ...] = ()


_Node: TypeAlias = _Constant | _Path | _Call


def _paths(node: _Node) -> Iterator[_Path]:
    if isinstance(node, _Path):
        yield node
    elif isinstance(node, _Call):
        for inner in (*node.given, *(argument for _, argument in node.named)):
            yield from _paths(inner)


class _Fault(Exception):
    """What is wrong, until it becomes a TemplateWrong where the location is known."""

    def __init__(self, message: str, code: str) -> None:
        super().__init__(message)
        self.message = message
        self.code = code


def _parsed(text: str, location: Location) -> tuple[str | _Node, ...]:
    try:
        return _parse(text)
    except _Fault as fault:
        raise TemplateWrong(fault.message, location=location, code=fault.code) from fault


@lru_cache(maxsize=1_000)
def _parse(text: str) -> tuple[str | _Node, ...]:
    """Return the literal and the templated parts of a text, in order; no empty literals."""
    parts: list[str | _Node] = []
    position = 0
    while (begins := text.find("{{", position)) >= 0 and text.find("}}", begins) >= 0:
        node, ends = _Parser(text, begins).read()
        parts += [text[position:begins], node] if begins > position else [node]
        position = ends
    return tuple([*parts, text[position:]] if position < len(text) or not parts else parts)


class _Parser:
    """A recursive-descent reader of one template."""

    def __init__(self, text: str, begins: int) -> None:
        self._text = text[begins : begins + _LONGEST]
        self._offset = begins
        self._at = 2

    def read(self) -> tuple[_Node, int]:
        """Return the expression, and where the text goes on after the closing braces."""
        node = self._value(depth=1)
        filters = 0
        while not self._accept("}}"):
            filters += 1
            if not self._accept("|") or filters > _MOST_FILTERS:
                self._refuse(f"after a value come at most {_MOST_FILTERS} filters, each behind |, and then }}}}")
            name = self._match(_NAME) or self._refuse("the name of a filter must follow |")
            if name not in FILTERS:
                known = ", ".join(sorted(FILTERS))
                raise _Fault(
                    f"The template has the filter {name[:60]!r}; there are {known}.", "unknown_template_filter"
                )
            given, named = self._arguments(2) if self._accept("(") else ((), ())
            node = _Call(name, is_filter=True, given=(node, *given), named=named)
        return node, self._offset + self._at

    def _refuse(self, why: str) -> NoReturn:
        shown = self._text[:80].partition("}}")[0]
        raise _Fault(f"The template {shown + '}}'!r} is malformed: {why}.", TemplateWrong.code)

    def _next(self) -> int:
        """Step over spaces, and return where the next token begins."""
        while self._at < len(self._text) and self._text[self._at].isspace():
            self._at += 1
        return self._at

    def _match(self, pattern: re.Pattern[str]) -> str | None:
        found = pattern.match(self._text, self._next())
        if found is None:
            return None
        self._at = found.end()
        return found[0]

    def _accept(self, mark: str) -> bool:
        if not self._text.startswith(mark, self._next()):
            return False
        self._at += len(mark)
        return True

    def _value(self, depth: int) -> _Node:
        if depth > _DEEPEST:
            self._refuse(f"calls are nested deeper than {_DEEPEST}")
        number = self._match(_NUMBER)
        if number is not None:
            return _Constant(float(number) if "." in number else int(number))
        string = self._match(_STRING)
        if string is not None:
            return _Constant(string[1:-1])
        name = self._match(_NAME) or self._refuse("a name, a number or a quoted text is missing")
        if self._accept("("):
            if name not in FUNCTIONS:
                known = ", ".join(sorted(FUNCTIONS))
                raise _Fault(f"The template calls {name[:60]!r}; it may call {known}.", "unknown_template_function")
            given, named = self._arguments(depth + 1)
            return _Call(name, is_filter=False, given=given, named=named)
        return _Constant(_CONSTANTS[name]) if name in _CONSTANTS else self._path(name)

    def _arguments(self, depth: int) -> tuple[tuple[_Node, ...], tuple[tuple[str, _Node], ...]]:
        given: list[_Node] = []
        named: list[tuple[str, _Node]] = []
        while not self._accept(")"):
            before, name = self._at, self._match(_NAME)
            if name is not None and self._accept("="):
                named.append((name, self._value(depth)))
            else:
                self._at = before
                given.append(self._value(depth))
            if not self._accept(",") and not self._text.startswith(")", self._at):
                self._refuse("a bracket is not closed")
        return tuple(given), tuple(named)

    def _path(self, name: str) -> _Path:
        root = _ROOTS.get(name.casefold())
        if root is None:
            message = f"The template names {name[:60]!r}; it may name INPUT, DOC, CONTEXT, STAGE and SECRET."
            raise _Fault(message, "unknown_template_name")
        keys: list[str | int] = []
        while True:
            if self._accept("."):
                keys.append(self._match(_KEY) or self._refuse("a key must follow the dot"))
            elif self._accept("["):
                string = self._match(_STRING)
                index = None if string is not None else self._match(_NUMBER)
                if string is None and (index is None or "." in index):
                    self._refuse("an index or a quoted key must stand in the brackets")
                keys.append(string[1:-1] if string is not None else int(index or 0))
                if not self._accept("]"):
                    self._refuse("']' is missing")
            else:
                return _Path(root, tuple(keys))


@dataclass(slots=True)
class _Filling:
    """One pass over one value. ``left`` is how many characters it may still write into texts."""

    names: Names
    clock: Clock
    left: int = field(default=MAX_FILLED)

    def fill(self, value: Json, location: Location) -> Json:
        if isinstance(value, dict):
            return {key: self.fill(item, (*location, key)) for key, item in value.items()}
        if isinstance(value, list) and not is_vector(value):
            return [self.fill(item, (*location, index)) for index, item in enumerate(value)]
        if not isinstance(value, str) or "{{" not in value:
            return value
        whole = _parsed(value.strip(), location)
        if len(whole) == 1 and not isinstance(whole[0], str):
            return self._value(whole[0], location)
        return "".join(
            part if isinstance(part, str) else self._rendered(part, location) for part in _parsed(value, location)
        )

    def _rendered(self, node: _Node, location: Location) -> str:
        try:
            text = render(self._value(node, location))
        except TypeError as error:
            raise TemplateWrong("A number is too large to be written into a text.", location=location) from error
        self.left -= len(text)
        if self.left < 0:
            message = f"Filled in, the texts are longer than {MAX_FILLED:,} characters."
            raise TemplateWrong(message, location=location, code="template_too_long")
        return text

    def _value(self, node: _Node, location: Location) -> Json:
        if isinstance(node, _Constant):
            return node.value
        if isinstance(node, _Path):
            return self._follow(node, location)
        given = [self._value(argument, location) for argument in node.given]
        named = {name: self._value(argument, location) for name, argument in node.named}
        try:
            if node.is_filter:
                value = FILTERS[node.name](given[0], given[1:], named)
            else:
                value = FUNCTIONS[node.name](self.clock, given, named)
        except (TypeError, ValueError, KeyError, OverflowError) as error:
            kind = "filter" if node.is_filter else "function"
            message = f"The {kind} {node.name} of a template does not fit what it is given."
            raise TemplateWrong(message, location=location, code="template_does_not_fit") from error
        if isinstance(value, str) and len(value) > MAX_TEXT:
            message = f"A template makes a text longer than {MAX_TEXT:,} characters."
            raise TemplateWrong(message, location=location, code="template_too_long")
        return value

    def _follow(self, path: _Path, location: Location) -> Json:
        """Return what is at a path. Only inputs and secrets must be there; elsewhere nothing is null."""
        if path.root not in self.names:
            message = f"{path.root} means nothing here; there are {', '.join(sorted(self.names))}."
            raise TemplateWrong(message, location=location, code="template_name_not_here")
        found: Any = self.names[path.root]
        for key in path.keys:
            index = _index(key)
            if isinstance(found, dict) and str(key) in found:
                found = found[str(key)]
            elif isinstance(found, list) and index is not None and -len(found) <= index < len(found):
                found = found[index]
            elif path.root == "INPUT":
                message = f"The input {'.'.join(map(str, path.keys))[:200]!r} was not given."
                raise MissingInput(message, location=("body", "inputs", str(path.keys[0])))
            elif path.root == "SECRET":
                message = f"There is no secret {str(key)[:60]!r}."
                raise TemplateWrong(message, location=location, code="unknown_secret")
            else:
                return None
        return found  # type: ignore[no-any-return]


def _index(key: str | int) -> int | None:
    if isinstance(key, int):
        return key
    return int(key) if re.fullmatch(r"-?[0-9]{1,9}", key) else None
