"""The language in which runs are asked for."""

import pytest

from mlhf_service.kit.problems import Problem
from mlhf_service.runs.query import All, Comparison, Not, Some, comparisons, parse


def test_what_is_written_is_read() -> None:
    assert parse("optimizer.lr < 1e-2") == Comparison("optimizer.lr", "<", (0.01,))
    assert parse("status=failed") == Comparison("status", "=", ("failed",))
    assert parse("name ~ 'it\\'s (a) test'") == Comparison("name", "~", ("it's (a) test",))
    assert parse('`tags.my key` == "0.1"') == Comparison("tags.my key", "=", ("0.1",))
    assert parse("seed in (0, 1)") == Comparison("seed", "in", (0.0, 1.0))
    assert parse("notes is null") == Comparison("notes", "null")
    assert parse("notes IS NOT NULL") == Not(Comparison("notes", "null"))


def test_and_binds_more_tightly_than_or() -> None:
    a, b, c = (Comparison(name, "=", (1.0,)) for name in "abc")
    assert parse("a=1 or b=1 and c=1") == Some((a, All((b, c))))
    assert parse("(a=1 or b=1) and not c=1") == All((Some((a, b)), Not(c)))
    assert list(comparisons(parse("(a=1 or b=1) and not c=1"))) == [a, b, c]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("lr <", "at character 5 it ends where a value"),
        ("lr 3", "at character 4 '3' stands where one of = != < <= > >= ~ !~"),
        ("lr < 3 lr", "where 'and', 'or' or the end is needed"),
        ("(lr < 3", "where ')' is needed"),
        ("name = 'open", "cannot be read from character 8"),
        ("= 3", "where a field"),
        ("(" * 30 + "a=1" + ")" * 30, "nested deeper"),
        ("not " * 30 + "a=1", "nested deeper"),
        (" and ".join(["a=1"] * 60), "more than 50 comparisons"),
        ("a in ()", "where a value"),
    ],
)
def test_what_cannot_be_read_is_told_with_its_place(text: str, said: str) -> None:
    with pytest.raises(Problem) as caught:
        parse(text)
    assert [error.pointer for error in caught.value.errors or ()] == ["filter"]
    assert said in caught.value.detail
