import pytest

from skdeepcluster.training import PeriodicHook, SilentHook


@pytest.mark.parametrize(
    ("epochs", "times", "expected"),
    [
        (6, 3, [0, 2, 4]),
        (7, 3, [0, 3, 5]),
        (2, 3, [0, 1]),
        (5, 1, [0]),
        (1, 1, [0]),
    ],
)
def test_acts_are_evenly_spread_and_begin_with_the_first_epoch(epochs, times, expected):
    acted, epoch = [], 0
    hook = PeriodicHook(SilentHook(), epochs, times, lambda: acted.append(epoch))
    for epoch in range(epochs):
        hook.begin(epoch)
        assert not hook.end(epoch)
    assert acted == expected


def test_the_other_hook_hears_of_all():
    class Watch(SilentHook):
        def begin(self, epoch):
            heard.append(epoch)

        def end(self, epoch):
            return epoch == 2

    heard = []
    hook = PeriodicHook(Watch(), 4, 1, lambda: heard.append("act"))
    stops = [hook.begin(epoch) or hook.end(epoch) for epoch in range(4)]
    assert heard == [0, "act", 1, 2, 3]
    assert stops == [False, False, True, False]
