"""The page that shows what a run has learned, in one file."""
