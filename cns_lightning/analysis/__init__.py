"""What the neurons of a base model and of a run's concepts say: similarity, shares, overlap, places, room left."""
