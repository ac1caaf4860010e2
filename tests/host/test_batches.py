"""Requests that wait together are answered together, and harm each other in nothing."""

import asyncio
import threading

import numpy as np
import pytest

from tinysaver_edge._support.limits import MOST_ROWS
from tinysaver_edge.errors import EngineError
from tinysaver_edge.host.kserve_model import Batches


class Model:
    """Answers a row with twice its number; works when it is let."""

    def __init__(self):
        self.sizes = []
        self.gate = threading.Event()
        self.gate.set()
        self.begun = threading.Event()

    def prepare(self, given):
        if given.dtype == object:
            raise EngineError("no picture")
        return given

    def run(self, batch):
        self.begun.set()
        assert self.gate.wait(10)
        self.sizes.append(len(batch))
        if (batch == 13).any():
            raise EngineError("not thirteen")
        if (batch == 99).any():
            raise RuntimeError("a driver's own")
        return 2 * batch


def answered(model, requests, *, limit=4, leaves=()):
    """What becomes of some requests that all come while the model is at work on another."""

    async def ask():
        batches = Batches(model.prepare, model.run, threads=1, limit=limit)
        model.gate.clear()
        first = asyncio.create_task(batches.answer(np.array([[0]])))
        while not model.begun.is_set():
            await asyncio.sleep(0.001)
        tasks = [asyncio.create_task(batches.answer(one)) for one in requests]
        await asyncio.sleep(0.01)
        for place in leaves:
            tasks[place].cancel()
        model.gate.set()
        return await asyncio.gather(first, *tasks, return_exceptions=True)

    return asyncio.run(ask())[1:]


def rows(*numbers):
    return [np.array([[number]]) for number in numbers]


@pytest.mark.parametrize(("limit", "sizes"), [(1, [1] * 6), (2, [1, 2, 2, 1]), (4, [1, 4, 1])])
def test_what_waits_is_answered_together_up_to_the_limit(limit, sizes):
    model = Model()
    found = answered(model, rows(1, 2, 3, 4, 5), limit=limit)
    assert [one.tolist() for one in found] == [[[2]], [[4]], [[6]], [[8]], [[10]]]
    assert model.sizes == sizes


def test_a_request_that_fails_harms_no_other():
    model = Model()
    found = answered(model, rows(1, 13, 3, 4))
    assert str(found[1]) == "not thirteen"
    assert [one.tolist() for one in (found[0], *found[2:])] == [[[2]], [[6]], [[8]]]


def test_what_is_no_input_is_refused_and_not_run():
    model = Model()
    found = answered(model, [*rows(1, 2), np.array([b"x"], object), *rows(4)])
    assert str(found[2]) == "no picture"
    assert [one.tolist() for one in (*found[:2], found[3])] == [[[2]], [[4]], [[8]]]


def test_whose_client_has_gone_is_never_begun_with():
    model = Model()
    found = answered(model, rows(1, 2, 3), leaves=(0, 2))
    assert [isinstance(one, asyncio.CancelledError) for one in found] == [True, False, True]
    assert model.sizes == [1, 1]


def test_requests_of_several_frames_are_run_as_they_came():
    model = Model()
    found = answered(model, [np.array([[1], [2], [3]]), *rows(4, 5), np.zeros((0, 1))])
    assert [one.tolist() for one in found] == [[[2], [4], [6]], [[8]], [[10]], []]
    assert model.sizes == [1, 3, 2, 0]


def test_any_failure_reaches_who_waits_and_the_next_are_answered():
    model = Model()
    found = answered(model, [np.array([[99], [1], [2]]), *rows(3)])
    assert isinstance(found[0], RuntimeError)
    assert found[1].tolist() == [[6]]


def test_a_request_of_many_frames_lets_others_in_between():
    model = Model()
    many = 100 + np.arange(30).reshape(30, 1)
    found = answered(model, [many, *rows(50, 51)], limit=2)
    assert found[0].tolist() == (2 * many).tolist()
    assert [one.tolist() for one in found[1:]] == [[[100]], [[102]]]
    assert model.sizes[:4] == [1, 2, 2, 2]
    assert model.sizes[4:] == [2] * (len(many) // 2 - 2)


def test_a_request_of_too_many_frames_is_refused_and_not_run():
    model = Model()
    found = answered(model, [np.zeros((MOST_ROWS + 1, 1)), *rows(4)])
    assert f"at most {MOST_ROWS}" in str(found[0])
    assert found[1].tolist() == [[8]]
    assert model.sizes == [1, 1]


def test_whatever_a_decoder_stumbles_over_is_its_senders_affair():
    model = Model()
    prepare = model.prepare

    def stumbling(given):
        if (given == 7).any():
            raise MemoryError("a picture of too many pixels")
        return prepare(given)

    model.prepare = stumbling
    found = answered(model, rows(1, 7, 3, 4))
    assert "cannot be read (MemoryError)" in str(found[1])
    assert [one.tolist() for one in (found[0], *found[2:])] == [[[2]], [[6]], [[8]]]
