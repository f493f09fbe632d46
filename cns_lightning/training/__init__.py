"""How a run is trained, around the LightningModule."""
