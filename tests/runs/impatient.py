"""A callback that ends a training early, as EarlyStopping and Timer do."""

from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer


class Impatient(Callback):
    """Asks the trainer to stop after the first batch of a stage."""

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        """Asks to stop."""
        trainer.should_stop = True
