"""Order is a pure function: neither ranks nor restarts change who sees what."""

from collections import Counter

from cns_lightning.data.order import StepSampler, sample_for


def test_every_picture_is_used_equally_often() -> None:
    drawn = Counter(sample_for(0, 1, step, sample, 5, 8, 4)[0] for step in range(10) for sample in range(4))
    assert set(drawn.values()) == {8}


def test_every_variant_is_used() -> None:
    assert {sample_for(0, 1, step, 0, 5, 8, 1)[1] for step in range(200)} == set(range(8))


def test_two_ranks_see_what_one_rank_with_twice_the_batch_sees() -> None:
    one = list(StepSampler(0, 0, 5, batch_size=4))
    ranks = [list(StepSampler(0, 0, 5, batch_size=2, rank=rank, ranks=2)) for rank in range(2)]
    assert [first + second for first, second in zip(*ranks, strict=True)] == one


def test_accumulated_batches_hold_the_samples_of_one_step() -> None:
    one = list(StepSampler(0, 0, 3, batch_size=4))
    parts = list(StepSampler(0, 0, 3, batch_size=2, accumulate=2))
    assert [parts[index] + parts[index + 1] for index in range(0, 6, 2)] == one


def test_sampler_continues_where_it_is_told_and_keeps_its_length() -> None:
    sampler = StepSampler(0, 3, 5, batch_size=1, accumulate=2)
    assert [batch[0][1] for batch in sampler] == [3, 3, 4, 4]
    assert len(sampler) == 10
    assert list(sampler) == list(sampler)
