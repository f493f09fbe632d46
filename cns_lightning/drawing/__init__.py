"""What is asked to be drawn with what a run has learned."""
