"""Train with MLHF in Lightning, by its automatic optimization.

    pip install '.[trainers]'
    python examples/lightning_module.py

Lines that are there for MLHF end in ``# MLHF``.
"""

import tempfile

import lightning
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

from mlhf import MLHF  # MLHF


class Classifier(lightning.LightningModule):
    """A small network on two classes."""

    def __init__(self) -> None:
        super().__init__()
        self.network = nn.Sequential(nn.Linear(20, 64), nn.Tanh(), nn.Linear(64, 2))

    def configure_optimizers(self):
        optimizer = self.mlhf = MLHF(self.network, loss="cross_entropy")  # MLHF
        scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.95)
        return [optimizer], [scheduler]

    def training_step(self, batch: tuple[Tensor, Tensor], _: int) -> Tensor:
        x, y = batch
        return self.mlhf.loss(self.network(x), y)  # MLHF

    def validation_step(self, batch: tuple[Tensor, Tensor], _: int) -> None:
        x, y = batch
        self.log("loss", functional.cross_entropy(self.network(x), y), prog_bar=False)

    def on_validation_start(self) -> None:  # MLHF: evaluates the average of the weights
        self.mlhf.eval()  # MLHF

    def on_validation_end(self) -> None:  # MLHF
        self.mlhf.train()  # MLHF


def main(folder: str, epochs: int = 6) -> tuple[float, float]:
    """Return the loss before and after training."""
    torch.manual_seed(0)
    x = torch.randn(512, 20)
    data = TensorDataset(x, (x.square().sum(1) > 20).long())
    module = Classifier()
    with torch.no_grad():
        first = float(functional.cross_entropy(module.network(x), data.tensors[1]))
    trainer = lightning.Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        accumulate_grad_batches=2,
        gradient_clip_val=5.0,
        default_root_dir=folder,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )
    loader = DataLoader(data, batch_size=32, shuffle=True)
    trainer.fit(module, loader, DataLoader(data, batch_size=256))
    last = float(trainer.callback_metrics["loss"])
    print(f"loss {first:.3f} before, {last:.3f} after")
    return first, last


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        main(folder)
