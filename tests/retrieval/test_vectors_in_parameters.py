"""Vectors inside stage parameters: walked over as one value, not number by number."""

from domain.json_types import is_vector


def test_only_a_list_of_numbers_is_a_vector():
    assert is_vector([1, 2.5, -3])
    assert not is_vector([1, True])
    assert not is_vector([1.0, "{{INPUT.x}}"])
    assert not is_vector([[1.0]])
    assert not is_vector("12")
