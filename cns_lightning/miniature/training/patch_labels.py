"""What lies where in rendered pictures, for the judge to learn on its way to captions."""

from __future__ import annotations

from collections.abc import Sequence

import numpy

from cns_lightning.miniature.world.vocabulary import FREE_COLOURS, FREE_PATTERNS, KINDS, Picture, nearest_colour

NOTHING = 0
LABELS = (len(KINDS) + 1, len(FREE_COLOURS) + 1, len(FREE_PATTERNS) + 1)


def patch_labels(pictures: Sequence[Picture], patches: int) -> numpy.ndarray:
    """Names kind, colour and pattern of the thing that covers the middle of every patch.

    A thing counts as the square it was drawn in.

    Args:
        pictures: records of the world, as rendered.
        patches: number of patches of a side.

    Returns:
        Shape (pictures, 3, patches, patches), uint8; 0 where there is nothing.
    """
    labels = numpy.zeros((len(pictures), 3, patches, patches), numpy.uint8)
    colours = list(FREE_COLOURS)
    middles = (numpy.arange(patches) + 0.5) / patches
    for index, picture in enumerate(pictures):
        for thing in sorted(picture.things, key=lambda thing: thing.y + thing.size / 2):  # as they are painted
            bottom, height = thing.y + thing.size / 2, thing.size * thing.stretch**0.5
            rows = numpy.abs(middles - (bottom - height / 2)) < height / 2
            columns = numpy.abs(middles - thing.x) < thing.size * thing.stretch**-0.5 / 2
            names = (
                KINDS.index(thing.kind),
                colours.index(nearest_colour(thing.colour)),
                FREE_PATTERNS.index(thing.pattern),
            )
            for channel, name in enumerate(names):
                labels[index, channel][numpy.ix_(rows, columns)] = 1 + name
    return labels
