"""Sequences of concepts and the texts around them: prompts, templates, calibration prompts."""
