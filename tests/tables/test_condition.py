"""Conditions as they are written: what they compare, and what is said of texts that are none."""

import pytest

from jaxgmm.tables.condition import Column, Comparison, Joined, parsed


def test_negations_are_moved_to_the_comparisons():
    plate, well = Column("plate"), Column("well")
    tree = parsed("not (plate = 7 or well in ('A01', 'A''2'))").tree
    assert tree == Joined(True, [Comparison(plate, "<>", 7), Comparison(well, "not in", ["A01", "A'2"])])
    assert parsed("NOT NOT plate IS NULL").tree == Comparison(plate, "is", None)


@pytest.mark.parametrize("sign", ["=", "<>", "<", "<=", ">", ">="])
def test_every_sign_has_one_opposite(sign):
    opposite = parsed(f"not plate {sign} 7").tree.sign
    assert opposite != sign
    assert parsed(f"not plate {opposite} 7").tree.sign == sign


@pytest.mark.parametrize(
    ("said", "value"),
    [
        ("7", 7),
        ("-7", -7),
        ("007", 7),
        ("7.", 7.0),
        ("+.5e-1", 0.05),
        ("1e400", float("inf")),
        ("99999999999999999999", 1e20),
        ("true", True),
        ("False", False),
        ("''", ""),
        ("'it''s'", "it's"),
        ("' = '", " = "),
        ('"red, far"', Column("red, far")),
        ("`a b`", Column("a b")),
        ('"a""b"', Column('a"b')),
        ("größe_2", Column("größe_2")),
        ("_private", Column("_private")),
        ('"and"', Column("and")),
        ("android", Column("android")),
    ],
)
def test_values_and_names_are_read_as_they_are_written(said, value):
    read = parsed(f"plate={said}").tree.right
    assert (read, type(read)) == (value, type(value))


def test_columns_are_named_once_and_those_compared_with_texts_are_known():
    condition = parsed("plate = 7 and (well = 'A01' or plate > 9) and 'x' < kind and red < green")
    assert condition.columns == ["plate", "well", "kind", "red", "green"]
    assert condition.texts == ["well", "kind"]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "it does not consist of comparisons"),
        ("plate =", "it does not consist of comparisons"),
        ("plate = 7 and", "it does not consist of comparisons"),
        ("plate = 7 well = 'A01'", "it does not consist of comparisons"),
        ("(plate = 7", "it does not consist of comparisons"),
        ("plate 7", "it does not consist of comparisons"),
        ("plate = 7, well = 'A01'", "it contains something other than comparisons"),
        ("plate", "it contains something other than comparisons"),
        ("not plate", "it contains something other than comparisons"),
        ("plate(7)", "it contains something other than comparisons"),
        ("plate = f(7)", "a column is compared with a value"),
        ("plate = (1, 2)", "a column is compared with a value"),
        ("plate in ()", "a column is compared with a value"),
        ("(plate = 7) = true", "a column is compared with a value"),
        ("plate in (1, well)", "lists have values"),
        ("7 in (1, 2)", "lists have values"),
        ("7 = 7", "no column is compared with 7"),
        ("plate = null", "a missing value is written 'is null'"),
        ("plate in (7, null)", "a missing value is written 'is null'"),
        ("plate is 7", "a missing value is written 'is null'"),
        ("null is null", "no column is compared with None"),
        ("plate = 7; drop", "'; drop' is neither a name, a value nor a comparison"),
        ("plate = 7x", "'7x' is neither a name, a value nor a comparison"),
        ("plate = 'A01", '"\'A01" is neither a name, a value nor a comparison'),
        ("plate.x = 7", "'.x = 7' is neither"),
        ('plate = ""', "is neither a name, a value nor a comparison"),
        ("(" * 500 + "plate = 7" + ")" * 500, "it does not consist of comparisons"),
        ("not " * 5000 + "plate = 7", "it does not consist of comparisons"),
    ],
)
def test_texts_that_are_no_conditions_are_refused_with_an_example(text, reason):
    with pytest.raises(ValueError, match="is not a valid condition: ") as caught:
        parsed(text)
    assert reason in str(caught.value)
    assert str(caught.value).endswith("""; write one such as "plate = 7 and well in ('A01', 'A02')".""")
    assert len(str(caught.value)) < 400
