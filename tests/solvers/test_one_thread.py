from threading import Event, Thread

import numpy as np
import pytest
from threadpoolctl import ThreadpoolController, threadpool_limits

from skcalib._solvers._newton_cg import Expansion, minimize


def blas_threads():
    pools = ThreadpoolController().select(user_api="blas")
    return [pool["num_threads"] for pool in pools.info()]


def tell_blas(n_threads):
    # By a thread that ends: the one that sets a limit may be the only one that can.
    thread = Thread(target=threadpool_limits, args=(n_threads, "blas"))
    thread.start()
    thread.join()


@pytest.fixture
def two_threads():
    """What BLAS says of its threads where it is told to use two."""
    before = blas_threads()
    tell_blas(2)
    yield blas_threads()
    tell_blas(before[0])


def search(look):
    """Search the minimum of a parabola, which calls `look` first."""

    def expand(x, curvature):
        look()
        return Expansion(0.5 * x @ x, x, lambda d: d, lambda r: r)

    minimize(expand, lambda x: 0.5 * x @ x, np.ones(2), tol=1e-12, max_iter=9)


def test_one_search_puts_the_threads_of_blas_back(two_threads):
    seen = []
    search(lambda: seen.append(blas_threads()))
    assert set(seen[0]) == {1}
    assert blas_threads() == two_threads


def test_searches_that_overlap_put_the_threads_of_blas_back(two_threads):
    first_began, second_began, seen = Event(), Event(), []

    def begin_first():
        first_began.set()
        assert second_began.wait(60)

    def begin_second():
        second_began.set()
        first.join(60)  # The second goes on when the first has ended.
        seen.append(blas_threads())

    first = Thread(target=search, args=(begin_first,))
    first.start()
    assert first_began.wait(60)
    search(begin_second)
    assert set(seen[0]) == {1}
    assert blas_threads() == two_threads


def test_a_search_that_fails_puts_the_threads_of_blas_back(two_threads):
    def fail():
        raise MemoryError

    for _ in range(2):
        with pytest.raises(MemoryError):
            search(fail)
        assert blas_threads() == two_threads
