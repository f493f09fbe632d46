"""A callback that ends a training early, as EarlyStopping and Timer do."""

from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer


class Impatient(Callback):
    """Asks the trainer to stop.

    Args:
        batch: after this batch of the first stage.
    """

    def __init__(self, batch: int = 0) -> None:
        self.batch = batch

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *arguments: Any) -> None:
        """Asks to stop."""
        if arguments[-1] == self.batch:
            trainer.should_stop = True
