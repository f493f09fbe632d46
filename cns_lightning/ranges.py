"""Numbers of a configuration together with their ranges, which the parser checks before anything is loaded."""

from typing import Annotated

from pydantic import Field
from typing_extensions import TypeAliasType

# Aliases, since what reads postponed annotations strips a bare Annotated of its range.
Count = TypeAliasType("Count", Annotated[int, Field(ge=1)])
"""How many of something that cannot do without."""
Amount = TypeAliasType("Amount", Annotated[int, Field(ge=0)])
"""How many of something of which there may be none."""
NonNegative = TypeAliasType("NonNegative", Annotated[float, Field(ge=0, allow_inf_nan=False)])
Positive = TypeAliasType("Positive", Annotated[float, Field(gt=0, allow_inf_nan=False)])
Share = TypeAliasType("Share", Annotated[float, Field(gt=0, le=1)])
"""A part of a whole that is not empty."""
Probability = TypeAliasType("Probability", Annotated[float, Field(ge=0, le=1)])
