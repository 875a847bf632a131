"""How many threads compute: a number for each thread of the program."""

import threading

import pytest
import scipy.linalg  # noqa: F401 - brings a pool of its own
import threadpoolctl
import torch

from skdeepcluster.training import intra_op_threads, threads_beside_torch


@pytest.fixture(autouse=True)
def three_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


def in_a_new_thread(function):
    found = []
    thread = threading.Thread(target=lambda: found.append(function()))
    thread.start()
    thread.join()
    return found[0]


def test_a_number_holds_inside_and_the_one_before_comes_back():
    with intra_op_threads(2):
        assert torch.get_num_threads() == intra_op_threads.count() == 2
        with intra_op_threads(1):
            assert torch.get_num_threads() == 1
        assert torch.get_num_threads() == 2
    assert torch.get_num_threads() == 3
    with pytest.raises(KeyError), intra_op_threads(1):
        raise KeyError
    assert torch.get_num_threads() == 3


def test_new_threads_do_not_begin_with_it():
    with intra_op_threads(1):
        assert in_a_new_thread(torch.get_num_threads) == 3
        with intra_op_threads(2):
            assert in_a_new_thread(torch.get_num_threads) == 3
    assert in_a_new_thread(torch.get_num_threads) == 3


def test_a_thread_that_makes_views_takes_the_number_and_no_other_does():
    with intra_op_threads(2):

        def make():
            intra_op_threads.set_here(2)
            return torch.get_num_threads()

        assert in_a_new_thread(make) == 2
        assert in_a_new_thread(torch.get_num_threads) == 3


def pools():
    return [
        (pool["filepath"], pool["num_threads"])
        for pool in threadpoolctl.threadpool_info()
        if pool["user_api"] == "blas"
    ]


def test_the_pools_of_other_libraries_are_held_to_it():
    import sklearn.cluster  # noqa: F401 - brings pools of its own

    with threadpoolctl.threadpool_limits(2):
        before = pools()
        assert before
        assert {n for _, n in before} == {2}
        with threads_beside_torch(1):
            assert {pool["num_threads"] for pool in threadpoolctl.threadpool_info()} == {1}
            with threads_beside_torch(1):
                pass
            assert {n for _, n in pools()} == {1}  # the inner one was not the last user
        assert pools() == before


def test_of_several_pools_only_those_are_held_that_are_larger():
    libraries = threadpoolctl.ThreadpoolController().select(user_api="blas").lib_controllers
    assert len(libraries) > 1  # those of numpy and SciPy
    with threadpoolctl.threadpool_limits(3):
        libraries[0].set_num_threads(1)
        with threads_beside_torch(2):
            assert [library.num_threads for library in libraries] == [1] + [2] * (
                len(libraries) - 1
            )
        assert [library.num_threads for library in libraries] == [1] + [3] * (len(libraries) - 1)


def test_pools_are_not_made_larger_than_the_user_has_them():
    with threadpoolctl.threadpool_limits(1):
        before = pools()
        with threads_beside_torch(2):
            assert pools() == before
