"""What is kept of every concept, in learning order, and what models follow from it."""
