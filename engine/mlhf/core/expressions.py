"""A closed language of formulas, such as ``sin(pi*x1)*exp(-x2)``, read without ``eval``.

    sum     = term {("+" | "-") term}
    term    = factor {("*" | "/") factor}
    factor  = ("+" | "-") factor | power
    power   = atom [("^" | "**") factor]
    atom    = number | constant | variable | function "(" sum ")" | "(" sum ")"

Functions are those of ``FUNCTIONS``, constants ``pi`` and ``e``; nothing else has a meaning, and
nothing but numbers comes of it.
"""

import math
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

FUNCTIONS = ("abs", "cos", "cosh", "exp", "log", "sin", "sinh", "sqrt", "tan", "tanh")
CONSTANTS = {"pi": math.pi, "e": math.e}
_LONGEST, _DEEPEST = 2000, 50
_TOKEN = re.compile(
    r"\s*(?:(\d+\.?\d*(?:[eE][+-]?\d+)?|\.\d+(?:[eE][+-]?\d+)?)|([A-Za-z_]\w*)|(\*\*|[-+*/^()]))"
)

# From the values of variables, and a module that has the functions, to a value.
_Node = Callable[[Mapping[str, Any], Any], Any]


class ExpressionError(ValueError):
    """A formula that is not of the language; the message says where."""


@dataclass(frozen=True)
class Expression:
    """A formula that was read.

    Attributes:
        text: As it was written.
        variables: Those that occur in it.
    """

    text: str
    variables: frozenset[str]
    _node: _Node

    def __call__(self, values: Mapping[str, Any], namespace: Any) -> Any:
        """Return its value.

        Args:
            values: Arrays or tensors by variable.
            namespace: Has the functions, such as ``numpy`` or ``torch``.
        """
        return self._node(values, namespace)


def parse(text: str, variables: Collection[str]) -> Expression:
    """Read a formula.

    Args:
        text: The formula.
        variables: What may occur in it.

    Raises:
        ExpressionError: where it is not of the language.
    """
    if len(text) > _LONGEST:
        raise ExpressionError(f"has {len(text)} characters; at most {_LONGEST} are allowed")
    reader = _Reader(text, variables)
    node = reader.sum(0)
    reader.end()
    return Expression(text, frozenset(reader.used), node)


class _Reader:
    """A recursive descent over the tokens."""

    def __init__(self, text: str, variables: Collection[str]) -> None:
        self._text, self._variables = text, variables
        self.used: set[str] = set()
        self._tokens: list[tuple[str, str, int]] = []
        at = 0
        while text[at:].strip():
            match = _TOKEN.match(text, at)
            if match is None:
                place = at + len(text[at:]) - len(text[at:].lstrip())
                raise ExpressionError(f"has {text[place]!r} at character {place + 1}, no symbol")
            kind = ("number", "name", "symbol")[(match.lastindex or 1) - 1]
            self._tokens.append(
                (kind, match[match.lastindex or 1], match.start(match.lastindex or 1))
            )
            at = match.end()
        self._next = 0

    def _peek(self) -> str | None:
        return self._tokens[self._next][1] if self._next < len(self._tokens) else None

    def _take(self, *symbols: str) -> str | None:
        found = self._peek()
        if found in symbols and self._tokens[self._next][0] == "symbol":
            self._next += 1
            return found
        return None

    def _wrong(self, wanted: str) -> ExpressionError:
        if self._next == len(self._tokens):
            return ExpressionError(f"ends where {wanted} is expected")
        _, token, at = self._tokens[self._next]
        return ExpressionError(f"has {token!r} at character {at + 1} where {wanted} is expected")

    def end(self) -> None:
        if self._next < len(self._tokens):
            raise self._wrong("an operator or the end")

    def sum(self, depth: int) -> _Node:
        if depth > _DEEPEST:
            raise ExpressionError(f"is nested more than {_DEEPEST} deep")
        left = self._term(depth)
        while symbol := self._take("+", "-"):
            left = _binary(symbol, left, self._term(depth))
        return left

    def _term(self, depth: int) -> _Node:
        left = self._factor(depth)
        while symbol := self._take("*", "/"):
            left = _binary(symbol, left, self._factor(depth))
        return left

    def _factor(self, depth: int) -> _Node:
        if depth > _DEEPEST:
            raise ExpressionError(f"is nested more than {_DEEPEST} deep")
        if symbol := self._take("+", "-"):
            inner = self._factor(depth + 1)
            return inner if symbol == "+" else lambda v, m: -inner(v, m)
        base = self._atom(depth)
        if self._take("^", "**"):
            return _binary("^", base, self._factor(depth + 1))
        return base

    def _atom(self, depth: int) -> _Node:
        if self._take("("):
            return self._closed(depth)
        if self._next == len(self._tokens) or self._tokens[self._next][0] == "symbol":
            raise self._wrong("a number, a variable or a function")
        kind, token, at = self._tokens[self._next]
        self._next += 1
        if kind == "number":
            value = float(token)
            if not math.isfinite(value):
                raise ExpressionError(f"has the number {token} at character {at + 1}, too large")
            return lambda v, m: value
        if token in FUNCTIONS:
            if not self._take("("):
                raise self._wrong(f"( after {token}")
            inner = self._closed(depth)
            return lambda v, m: getattr(m, token)(_array(inner(v, m), v))
        if token in self._variables:
            self.used.add(token)
            return lambda v, m: v[token]
        if token in CONSTANTS:
            constant = CONSTANTS[token]
            return lambda v, m: constant
        raise ExpressionError(
            f"has {token!r} at character {at + 1}; known are {', '.join(sorted(self._variables))}, "
            f"{', '.join(CONSTANTS)}, and the functions {', '.join(FUNCTIONS)}"
        )

    def _closed(self, depth: int) -> _Node:
        inner = self.sum(depth + 1)
        if not self._take(")"):
            raise self._wrong(")")
        return inner


def _array(value: Any, values: Mapping[str, Any]) -> Any:
    """Return a number in the form of the variables: modules have functions of arrays."""
    if isinstance(value, float) and values:
        return 0 * next(iter(values.values())) + value
    return value


def _binary(symbol: str, left: _Node, right: _Node) -> _Node:
    if symbol == "+":
        return lambda v, m: left(v, m) + right(v, m)
    if symbol == "-":
        return lambda v, m: left(v, m) - right(v, m)
    if symbol == "*":
        return lambda v, m: left(v, m) * right(v, m)
    if symbol == "/":
        return lambda v, m: _divided(left(v, m), right(v, m), v)
    return lambda v, m: _power(left(v, m), right(v, m), v)


def _divided(a: Any, b: Any, values: Mapping[str, Any]) -> Any:
    return _array(a, values) / _array(b, values)


def _power(a: Any, b: Any, values: Mapping[str, Any]) -> Any:
    # Numbers could be raised beyond what a float holds, which Python makes an error.
    return _array(a, values) ** b
