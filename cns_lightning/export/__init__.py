"""What a run has learned, in the file formats of other programs."""
