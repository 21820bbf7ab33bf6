from __future__ import annotations

from vitpose.data.dataset import MixSampler
from vitpose.training.samples import Stream


def test_the_stream_goes_on_where_it_stopped() -> None:
    def taken(start: int, count: int) -> list[tuple[int, int]]:
        stream = iter(Stream(MixSampler([5, 3], seed=4), start))
        return [next(stream) for _ in range(count)]

    assert taken(0, 30)[13:] == taken(13, 17)
    assert sorted(index for _, index in taken(0, 8)) == list(range(8))
