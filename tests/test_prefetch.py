"""Threads beside the device: order, how much is held, errors in their place; no test measures time."""

from threading import Event, Timer

import pytest

from lift_trl.prefetch import ahead, behind


WAIT_S = 20


@pytest.mark.parametrize("threads", [1, 3])
def test_the_next_are_made_while_one_is_used_and_no_more_are_held(threads):
    begun, drawn = [Event() for _ in range(9)], []

    def items():
        for index in range(9):
            drawn.append(index)
            yield index

    def make(index):
        begun[index].set()
        return index * index

    for index, made in enumerate(ahead(make, items(), threads=threads)):
        assert made == index * index
        assert all(event.wait(WAIT_S) for event in begun[index : index + 1 + threads])
        assert len(drawn) == min(9, index + 1 + threads)


def test_an_error_stands_in_its_items_place_and_nothing_is_begun_after_it():
    made = []

    def make(index):
        made.append(index)
        if index == 2:
            raise ValueError("item 2")
        return index

    results = ahead(make, range(100), threads=2)
    assert [next(results), next(results)] == [0, 1]
    with pytest.raises(ValueError, match="item 2"):
        next(results)
    assert max(made) <= 4


def test_the_body_goes_on_while_one_call_runs_and_one_waits():
    go, done = Event(), []

    def call(name):
        assert go.wait(WAIT_S)
        done.append(name)

    with behind() as put:
        put(call, "first")
        put(call, "second")
        assert done == []  # the body came here with the first still running
        Timer(0.05, go.set).start()
        put(call, name="third")
        assert done[0] == "first"  # two are held, not three
    assert done == ["first", "second", "third"]


def test_an_error_behind_is_raised_and_a_bodys_error_leaves_nothing_half_done():
    done = []
    with pytest.raises(OSError, match="clip 1"), behind() as put:
        put(done.append, 0)
        put(lambda: (_ for _ in ()).throw(OSError("clip 1")))
    with pytest.raises(KeyError), behind() as put:
        put(done.append, 2)
        put(done.append, 3)
        raise KeyError
    assert done == [0, 2, 3]
