"""The jobs that other tests start."""

from tests.processes import Job


def count() -> None:
    for number in range(5000):
        print("number:", number, "done")


def test_lines_of_processes_do_not_mix(tmp_path):
    """A test that counts them failed now and then."""
    lines = Job(tmp_path / "log", count, num_processes=3).finish().splitlines()
    assert sorted(lines) == sorted(3 * [f"number: {number} done" for number in range(5000)])
