import os
import threading

from tinysaver_edge._support.calls import Calls
from tinysaver_edge.errors import EngineError


def test_outside_a_call_the_end_is_waited_for():
    calls, ended = Calls("a thing"), []
    calls.end(lambda: ended.append(threading.get_ident()))
    assert ended == [threading.get_ident()]


def test_within_a_call_the_end_comes_after_it():
    calls, lock, ended = Calls("a thing"), threading.Lock(), threading.Event()

    def end():
        with lock:
            ended.set()

    with calls, lock:
        calls.end(end)
        assert not ended.wait(0.1)
    assert ended.wait(5)


def test_calls_of_other_threads_do_not_matter():
    calls, within, done = Calls("a thing"), threading.Event(), threading.Event()

    def call():
        with calls:
            within.set()
            done.wait(5)

    thread = threading.Thread(target=call)
    thread.start()
    assert within.wait(5)
    ended = []
    calls.end(lambda: ended.append(True))
    assert ended == [True]
    done.set()
    thread.join()


def test_a_forked_process_is_told_so_and_ends_nothing():
    calls = Calls("a thing")
    calls.check()
    read, write = os.pipe()
    child = os.fork()
    if not child:
        told = b"nothing"
        try:
            calls.end(lambda: os.write(write, b"ended "))
            calls.check()
        except EngineError as error:
            told = str(error).encode()
        os.write(write, told)
        os._exit(0)
    os.waitpid(child, 0)
    told = os.read(read, 1000).decode()
    assert told == "a thing does not survive a fork: load it in each process, after the fork"
