"""Measurements behind the figures in docs/; each prints its own command line."""
