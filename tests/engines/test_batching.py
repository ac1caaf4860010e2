"""How many samples at once: a model of known times is asked as often as it should be."""

import numpy as np
import pytest

from tinysaver_edge.engines.batching import most_at_once, quickest_size
from tinysaver_edge.testing import FakeClock


def found(times_s):
    """What is found for a model of these times, and the batches it was asked for."""
    clock, asked = FakeClock(), []

    def ask(batch):
        asked.append(len(batch))
        clock.advance(times_s[len(batch)])

    return quickest_size(ask, np.zeros((1, 8, 8, 3), np.uint8), clock=clock), asked


@pytest.mark.parametrize(
    ("times_s", "size"),
    [
        ({1: 0.1, 2: 0.2, 4: 0.4}, 1),
        ({1: 0.1, 2: 0.14, 4: 0.3}, 2),
        ({1: 0.1, 2: 0.14, 4: 0.2}, 4),
        ({1: 0.1, 2: 0.16, 4: 0.24}, 4),
        ({1: 0.1, 2: 0.16, 4: 0.26}, 1),  # more a second, and on average each of them later
    ],
)
def test_the_size_is_the_quickest_of_those_that_answer_no_later(times_s, size):
    assert found(times_s)[0] == size


def test_another_program_in_between_does_not_count():
    """It makes one call longer, of whichever size it meets."""
    clock, calls = FakeClock(), iter(range(1000))

    def ask(batch):
        clock.advance(0.1 * len(batch) + (0.5 if next(calls) // 3 % 3 else 0.0))

    assert quickest_size(ask, np.zeros((1, 8, 8, 3), np.uint8), clock=clock) == 1


def test_a_slow_model_is_not_kept_from_starting():
    assert found({1: 0.3, 2: 0.3, 4: 0.3}) == (1, [1, 1])


@pytest.mark.parametrize(
    ("limit", "counts"), [(1, [0, 1, 1, 1, 1]), (2, [0, 1, 2, 2, 2]), (4, [0, 1, 2, 2, 4])]
)
def test_only_sizes_that_were_timed_are_asked(limit, counts):
    assert [most_at_once(waiting, limit) for waiting in range(5)] == counts
    assert most_at_once(9, limit) == limit
