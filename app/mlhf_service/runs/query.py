"""The language in which runs are asked for: ``optimizer.lr < 0.01 and tags.team = 'vision'``.

A small closed grammar, read into a tree that ``runs.search`` turns into SQL:

    query      := all ("or" all)*
    all        := one ("and" one)*
    one        := "not" one | "(" query ")" | field comparison
    comparison := ("=" | "!=" | "<" | "<=" | ">" | ">=" | "~" | "!~") value
                | ["not"] "in" "(" value ("," value)* ")"
                | "is" ["not"] "null"

``~`` asks for a part of a text, without regard to case. A value is a number, a text in quotes,
or a word. A name with other characters than letters, digits, ``_ . -`` stands in backquotes.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NoReturn

from mlhf_service.kit.problems import Invalid

MAX_LENGTH, MAX_COMPARISONS, MAX_DEPTH = 2000, 50, 20
OPERATORS = ("=", "!=", "<", "<=", ">", ">=", "~", "!~")

Value = float | str


@dataclass(frozen=True)
class Comparison:
    """One field compared with values.

    Attributes:
        operator: One of ``OPERATORS``, ``"in"``, or ``"null"`` (no values).
    """

    field: str
    operator: str
    values: tuple[Value, ...] = ()


@dataclass(frozen=True)
class All:
    """Every one must hold."""

    parts: "tuple[Query, ...]"


@dataclass(frozen=True)
class Some:
    """At least one must hold."""

    parts: "tuple[Query, ...]"


@dataclass(frozen=True)
class Not:
    """It must not hold."""

    part: "Query"


Query = Comparison | All | Some | Not

_TOKEN = re.compile(
    r"""\s*(?:
      (?P<text>'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")
    | `(?P<quoted>[^`]+)`
    | (?P<operator>!=|<=|>=|==|!~|=|<|>|~)
    | (?P<mark>[(),])
    | (?P<word>[^\s'"`!<>=~(),]+)
    )""",
    re.VERBOSE,
)
_SYMBOLS = {"==": "="}


@dataclass(frozen=True)
class _Token:
    kind: str
    text: str
    at: int


def parse(text: str) -> Query:
    """Read a query. Raises Invalid, which says where it cannot be read and what may stand there."""
    if len(text) > MAX_LENGTH:
        _refuse(f"longer than {MAX_LENGTH:,} characters")
    return _Parser(text).whole()


def comparisons(query: Query) -> Iterator[Comparison]:
    """All comparisons of a query."""
    match query:
        case Comparison():
            yield query
        case Not(part):
            yield from comparisons(part)
        case All(parts) | Some(parts):
            for part in parts:
                yield from comparisons(part)


def _tokens(text: str) -> Iterator[_Token]:
    at = 0
    while text[at:].strip():
        found = _TOKEN.match(text, at)
        if found is None:
            at += len(text[at:]) - len(text[at:].lstrip())
            _refuse(f"cannot be read from character {at + 1} on: {text[at : at + 20]!r}")
        kind = found.lastgroup or ""
        yield _Token(kind, found[kind], found.start(kind))
        at = found.end()


class _Parser:
    def __init__(self, text: str) -> None:
        self.tokens = list(_tokens(text))
        self.end = _Token("end", "", len(text))
        self.place = self.comparisons = 0

    @property
    def next(self) -> _Token:
        return self.tokens[self.place] if self.place < len(self.tokens) else self.end

    def take(self) -> _Token:
        token = self.next
        self.place += 1
        return token

    def took(self, *words: str) -> bool:
        """Take a word or a mark if it stands next."""
        token = self.next
        if token.kind in ("word", "mark") and token.text.lower() in words:
            self.place += 1
            return True
        return False

    def whole(self) -> Query:
        query = self.any(0)
        if self.next is not self.end:
            self.expected("'and', 'or' or the end")
        return query

    def any(self, depth: int) -> Query:
        if depth > MAX_DEPTH:
            _refuse(f"nested deeper than {MAX_DEPTH} levels")
        parts = [self.all(depth)]
        while self.took("or"):
            parts.append(self.all(depth))
        return parts[0] if len(parts) == 1 else Some(tuple(parts))

    def all(self, depth: int) -> Query:
        parts = [self.one(depth)]
        while self.took("and"):
            parts.append(self.one(depth))
        return parts[0] if len(parts) == 1 else All(tuple(parts))

    def one(self, depth: int) -> Query:
        if depth > MAX_DEPTH:
            _refuse(f"nested deeper than {MAX_DEPTH} levels")
        if self.took("not"):
            return Not(self.one(depth + 1))
        if self.took("("):
            query = self.any(depth + 1)
            if not self.took(")"):
                self.expected("')'")
            return query
        return self.comparison()

    def comparison(self) -> Query:
        token = self.next
        if token.kind not in ("word", "quoted"):
            self.expected("a field, such as status, optimizer.lr, test_loss.best or tags.team")
        self.place += 1
        field = token.text
        self.comparisons += 1
        if self.comparisons > MAX_COMPARISONS:
            _refuse(f"more than {MAX_COMPARISONS} comparisons")
        if self.next.kind == "operator":
            symbol = self.take().text
            return Comparison(field, _SYMBOLS.get(symbol, symbol), (self.value(),))
        if self.took("is"):
            negated = self.took("not")
            if not self.took("null"):
                self.expected("'null'")
            found = Comparison(field, "null")
            return Not(found) if negated else found
        negated = self.took("not")
        if not self.took("in"):
            self.expected(f"one of {' '.join(OPERATORS)}, 'in (…)' or 'is null', after {field!r}")
        if not self.took("("):
            self.expected("'('")
        values = [self.value()]
        while self.took(","):
            values.append(self.value())
        if not self.took(")"):
            self.expected("',' or ')'")
        among = Comparison(field, "in", tuple(values))
        return All((Not(Comparison(field, "null")), Not(among))) if negated else among

    def value(self) -> Value:
        token = self.next
        if token.kind not in ("text", "word", "quoted"):
            self.expected("a value: a number, a word, or a text in quotes")
        self.place += 1
        if token.kind == "text":
            return re.sub(r"\\(.)", r"\1", token.text[1:-1])
        if token.kind == "word":
            try:
                number = float(token.text)
            except ValueError:
                return token.text
            if number == number and abs(number) != float("inf"):
                return number
        return token.text

    def expected(self, what: str) -> NoReturn:
        token = self.next
        found = "it ends" if token.kind == "end" else f"{token.text!r} stands"
        _refuse(f"at character {token.at + 1} {found} where {what} is needed")


def _refuse(reason: str) -> NoReturn:
    message = f"the filter {reason}" if not reason.startswith("at ") else f"in the filter, {reason}"
    raise Invalid.at("filter", f"{message}.")
