"""A page in the browser that draws with what a run has learned."""
