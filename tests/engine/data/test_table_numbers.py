"""Numbers as people write them."""

import pytest

from mlhf.data.table_numbers import ambiguous, formats_of, is_number


@pytest.mark.parametrize(
    ("texts", "values"),
    [
        (["1,5", "-2,25", "3"], [1.5, -2.25, 3]),
        (["$1,200.50", "$3.00"], [1200.5, 3]),
        (["1.200,50 €", "-3,00 €"], [1200.5, -3]),
        (["EUR 5", "EUR 6"], [5, 6]),
        (["5%", "12.5 %"], [0.05, 0.125]),
        (["1,000", "1,000,000"], [1000, 1e6]),
        (["1,000", "2.5"], [1000, 2.5]),
        (["1\u00a0000", "2\u202f500"], [1000, 2500]),
        (["1'000.5", "7"], [1000.5, 7]),
        (["\u22125", "5"], [-5, 5]),
        (["(1,200.00)", "1.5"], [-1200, 1.5]),
        (["0,123", "0,5"], [0.123, 0.5]),
        (["1,5e3", "2"], [1500, 2]),
    ],
)
def test_a_column_is_read_in_the_one_format_that_fits_it(texts, values):
    formats = formats_of(texts)
    assert ambiguous(texts, formats) is None
    assert [formats[0].parse(text) for text in texts] == pytest.approx(values)


@pytest.mark.parametrize(
    "texts",
    [
        ["5%", "6"],
        ["$5", "€6"],
        ["1,5", "2.5"],
        ["1.000,5", "1,000.5"],
        ["5 kg"],
        ["1-2"],
        ["1,00,0.5,2"],
        ["2020-01-01"],
        [""],
        ["--5"],
    ],
)
def test_what_no_one_format_fits_is_not_a_column_of_numbers(texts):
    assert formats_of(texts) == []


def test_a_number_that_has_two_meanings_is_said():
    text, values = ambiguous(["1,000", "2"], formats_of(["1,000", "2"]))
    assert (text, values) == ("1,000", [1, 1000])
    for decimal, value in ((".", 1000), (",", 1)):
        formats = formats_of(["1,000"], decimal)
        assert ambiguous(["1,000"], formats) is None
        assert formats[0].parse("1,000") == value


def test_a_value_in_another_format_is_refused():
    (first, *_) = formats_of(["1,5"])
    for text in ("1.5.", "5%", "$5", "x"):
        with pytest.raises(ValueError, match="not in the format"):
            first.parse(text)
    assert is_number("5%")
    assert not is_number("x5")
