"""Numbers of a configuration together with their ranges, which the parser checks before anything is loaded."""

from typing import Annotated

from pydantic import Field
from typing_extensions import TypeAliasType

# Pydantic's, since values of jsonargparse's own number types are of classes that no checkpoint may hold. Aliases, since
# what reads postponed annotations strips a bare Annotated of its range.
Count = TypeAliasType("Count", Annotated[int, Field(ge=1)])
"""A number of things, at least one."""
Amount = TypeAliasType("Amount", Annotated[int, Field(ge=0)])
"""A number of things, or none."""
NonNegative = TypeAliasType("NonNegative", Annotated[float, Field(ge=0, allow_inf_nan=False)])
Positive = TypeAliasType("Positive", Annotated[float, Field(gt=0, allow_inf_nan=False)])
Share = TypeAliasType("Share", Annotated[float, Field(gt=0, le=1)])
"""A share above 0, at most 1."""
Probability = TypeAliasType("Probability", Annotated[float, Field(ge=0, le=1)])
