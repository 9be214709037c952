"""Text that people name things by: what is allowed in it.

Control characters (C0, DEL, C1, so NEL too), line and paragraph separators, and the
characters that change the direction of text are refused: they reorder or split what pages,
logs and terminals show around a name. Letters of every script, emoji and joiners are fine.
"""

import re
from typing import Annotated

from pydantic import Field, StringConstraints

_REFUSED = (
    # Escapes of the pattern, not of Python: it stands in the OpenAPI document, which YAML readers
    # refuse if it holds such characters themselves.
    r"\x00-\x1f\x7f-\x9f"  # controls
    r"\u2028\u2029"  # line and paragraph separators
    r"\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"  # marks, embeddings, overrides, isolates
)
PATTERN = f"^[^{_REFUSED}]+$"
PATTERN_OR_EMPTY = f"^[^{_REFUSED}]*$"
MOST = 200


def is_plain(text: str) -> bool:
    """Whether a thing may be called so."""
    half = any("\ud800" <= character <= "\udfff" for character in text)  # of a surrogate pair
    return len(text) <= MOST and not half and re.fullmatch(PATTERN, text) is not None


PlainText = Annotated[
    str,
    StringConstraints(min_length=1, max_length=MOST, pattern=PATTERN),
    Field(examples=["a first try"]),  # the page /docs would make one up from the pattern
]
