"""The closed form against the optimality conditions, solved as one linear system; and its constraints."""

import numpy
import torch

from cns_lightning.methods.constrained_merge import ConstrainedMerge

WIDTH, ROWS = 12, 5


def problem() -> tuple[torch.Tensor, list[torch.Tensor], torch.Tensor, list[torch.Tensor]]:
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    return draw(40, WIDTH), [draw(3, WIDTH), draw(2, WIDTH)], draw(ROWS, WIDTH), [draw(ROWS, WIDTH) for _ in range(2)]


def test_every_concept_keeps_its_own_keys_and_values() -> None:
    regularization, words, pretrained, deltas = problem()
    merged = ConstrainedMerge(regularization, words).merged(pretrained, deltas)
    for own, delta in zip(words, deltas, strict=True):
        assert torch.allclose(merged @ own.T, (pretrained + delta) @ own.T, rtol=0, atol=1e-4)


def test_it_is_the_least_squares_solution() -> None:
    regularization, words, pretrained, deltas = problem()
    merged = ConstrainedMerge(regularization, words, ridge=0.0).merged(pretrained, deltas).double().numpy()
    captions, together = regularization.double().numpy(), torch.cat(words).double().numpy()
    gram, count = captions.T @ captions, len(together)
    values = (
        torch.cat([(pretrained + delta) @ own.T for own, delta in zip(words, deltas, strict=True)], 1).double().numpy()
    )
    # Each row by itself: the gradient of the objective is a combination of the constraints, and the constraints hold.
    system = numpy.block([[2 * gram, together.T], [together, numpy.zeros((count, count))]])
    for row in range(ROWS):
        right = numpy.concatenate([2 * gram @ pretrained[row].double().numpy(), values[row]])
        assert numpy.allclose(merged[row], numpy.linalg.solve(system, right)[:WIDTH], atol=1e-5)


def test_words_that_two_concepts_share_do_no_harm() -> None:
    regularization, words, pretrained, deltas = problem()
    shared = [words[0], torch.cat([words[0][:1], words[1]])]
    agreeing = [deltas[0], deltas[1].clone()]
    agreeing[1] += torch.outer((deltas[0] - deltas[1]) @ words[0][0], words[0][0]) / words[0][0].square().sum()
    merged = ConstrainedMerge(regularization, shared).merged(pretrained, agreeing)
    for own, delta in zip(shared, agreeing, strict=True):
        assert torch.allclose(merged @ own.T, (pretrained + delta) @ own.T, rtol=0, atol=1e-3)


def test_untouched_directions_stay() -> None:
    regularization, words, pretrained, deltas = problem()
    merged = ConstrainedMerge(regularization, words).merged(pretrained, [delta * 0 for delta in deltas])
    assert torch.equal(merged, pretrained)
