import numpy as np
import pytest

from skcalib._validation import check_whole


def test_a_whole_number_becomes_an_int():
    assert type(check_whole("n_bins", np.int8(3))) is int
    assert check_whole("n_bootstrap", 0, least=0) == 0


@pytest.mark.parametrize("value", [1, 2.0, "2", None, True, np.nan])
def test_anything_else_is_refused_by_name(value):
    message = f"n_splits={value!r} is not a whole number of at least 2"
    with pytest.raises(ValueError, match=message):
        check_whole("n_splits", value, 2)
