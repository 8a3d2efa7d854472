"""Work beside the device: what it takes next is made ahead of it, and what it made is stored behind it, by threads."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, Protocol, TypeVar


Given = TypeVar("Given")
Made = TypeVar("Made")


class Put(Protocol):
    """Takes a function and its arguments, to be called later."""

    def __call__(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> None: ...


def ahead(make: Callable[[Given], Made], items: Iterable[Given], *, threads: int = 2) -> Iterator[Made]:
    """
    `make` of each item, in order: while one result is used, the next `threads` are made, and no more are held.

    What `make` raises for an item is raised in that item's place, after the results before it.

    >>> list(ahead(len, ["a", "bcd"]))
    [1, 3]
    """
    pool = ThreadPoolExecutor(threads, thread_name_prefix="ahead")
    waiting: deque[Future[Made]] = deque()
    try:
        for item in items:
            waiting.append(pool.submit(make, item))
            if len(waiting) > threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


@contextmanager
def behind() -> Iterator[Put]:
    """
    Gives a function that has others called one after another by a thread; the body goes on meanwhile.

    One call runs and one waits; to put a third waits for the first. At the end, also after an error in the body, all are
    done. What a call raises is raised by a later `put`, or at the end.

    >>> done = []
    >>> with behind() as put:
    ...     put(done.append, 1)
    >>> done
    [1]
    """
    pool = ThreadPoolExecutor(1, thread_name_prefix="behind")
    waiting: deque[Future[Any]] = deque()

    def put(function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> None:
        while waiting and (len(waiting) > 1 or waiting[0].done()):
            waiting.popleft().result()
        waiting.append(pool.submit(function, *args, **kwargs))

    try:
        yield put
    finally:
        pool.shutdown()
        for future in waiting:
            future.result()
