"""Numbers as people write them: decimal commas, thousands, currencies, percent.

A column is a column of numbers only where one format fits all of its values.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

# Texts that stand for a missing value among numbers, in lower case.
_WORDS = "na n/a n.a. #n/a <na> nan -nan null (null) none nil - -- – — ? n/k k.a. . missing"
MISSING = frozenset(("", *_WORDS.split(" ")))

_SYMBOL = r"[$€£¥₹]|USD|EUR|GBP|CHF|JPY|CNY|INR|SEK|NOK|DKK|PLN|CZK|kr|zł|Fr\.?"
_AROUND = re.compile(
    rf"(?P<minus>\()?(?P<sign>[+-]?)\ ?(?P<before>{_SYMBOL})?\ ?(?P<inner>[+-]?)"
    rf"(?P<digits>[.,]?\d[\d.,' ]*?(?:[eE][+-]?\d+)?)\ ?(?P<percent>%)?\ ?(?P<after>{_SYMBOL})?"
    r"(?(minus)\))"
)
# Spaces that do not break, thin spaces; typographic apostrophes and minus signs.
_PLAIN = str.maketrans("\u00a0\u202f\u2009\u2007\u2019\u2212", "    '-")


@dataclass(frozen=True)
class NumberFormat:
    """How the numbers of a column are written.

    Attributes:
        decimal: The mark before the fraction.
        thousands: The mark between groups of three digits, which need not occur.
        percent: All values end in %; they are divided by 100.
        symbol: The currency of all values, or "".
    """

    decimal: str
    thousands: str
    percent: bool = False
    symbol: str = ""

    def __str__(self) -> str:
        marks = f"decimal mark {self.decimal!r}, thousands {self.thousands!r}"
        percent = ", percent divided by 100" if self.percent else ""
        return marks + percent + (f", without the currency {self.symbol}" if self.symbol else "")

    def parse(self, text: str) -> float:
        """Return the number. Raises ValueError unless the text is in this format."""
        taken = _taken(text)
        if taken is None or (taken.percent, taken.symbol) != (self.percent, self.symbol):
            raise ValueError(f"{text!r} is not in the format of the column: {self}")
        if not _PATTERNS[self.decimal, self.thousands].fullmatch(taken.digits):
            raise ValueError(f"{text!r} is not in the format of the column: {self}")
        digits = taken.digits.replace(self.thousands, "").replace(self.decimal, ".")
        return taken.sign * float(digits) / (100 if self.percent else 1)

    def note(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return {
            "decimal": self.decimal,
            "thousands": self.thousands,
            "percent": self.percent,
            "symbol": self.symbol,
        }


@dataclass(frozen=True)
class _Taken:
    sign: int
    digits: str
    percent: bool
    symbol: str


def is_number(text: str) -> bool:
    """Whether a text is a number in some format."""
    return next(_formats(text), None) is not None


def formats_of(
    texts: Iterable[str], decimal: str | None = None, thousands: str | None = None
) -> list[NumberFormat]:
    """Return the formats that fit every text, of those with the given marks."""
    fitting: list[NumberFormat] | None = None
    for text in texts:
        own = set(_formats(text))
        if fitting is None:
            fitting = sorted(own, key=lambda f: (f.decimal != ".", f.thousands != ",", str(f)))
            fitting = [
                f
                for f in fitting
                if decimal in (None, f.decimal) and thousands in (None, f.thousands)
            ]
        else:
            fitting = [f for f in fitting if f in own]
        if not fitting:
            return []
    return fitting or []


def ambiguous(texts: Iterable[str], formats: list[NumberFormat]) -> tuple[str, list[float]] | None:
    """Return a text that two formats read differently, and what they read; None if there is none.

    The first of the formats then stands for all of them.
    """
    for text in texts:
        values = sorted({format.parse(text) for format in formats})
        if len(values) > 1:
            return text, values
    return None


def _formats(text: str) -> Iterator[NumberFormat]:
    taken = _taken(text)
    if taken is None:
        return
    for (decimal, thousands), pattern in _PATTERNS.items():
        if pattern.fullmatch(taken.digits):
            yield NumberFormat(decimal, thousands, taken.percent, taken.symbol)


def _taken(text: str) -> _Taken | None:
    """Separate a number's digits from what is around them."""
    found = _AROUND.fullmatch(text.translate(_PLAIN).strip())
    if found is None or (found["before"] and found["after"]) or (found["sign"] and found["inner"]):
        return None
    negative = found["minus"] is not None or "-" in (found["sign"], found["inner"])
    return _Taken(
        -1 if negative else 1,
        found["digits"],
        found["percent"] is not None,
        found["before"] or found["after"] or "",
    )


def _pattern(decimal: str, thousands: str) -> re.Pattern[str]:
    mark, group = re.escape(decimal), re.escape(thousands)
    # "0,123" is no number of thousands.
    whole = rf"(?:\d+|[1-9]\d{{0,2}}(?:{group}\d{{3}})+)"
    return re.compile(rf"(?:{whole}(?:{mark}\d*)?|{mark}\d+)(?:[eE][+-]?\d+)?")


_PATTERNS = {
    (decimal, thousands): _pattern(decimal, thousands)
    for decimal, marks in ((".", ", '"), (",", ". '"))
    for thousands in marks
}
