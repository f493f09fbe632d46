"""Which weights matter for a concept: pure functions on tensors."""
