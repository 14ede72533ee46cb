"""A Lightning module as a function of a trial: the loss of every step becomes the curve."""

import lightning
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

import mpisweep


class Classifier(lightning.LightningModule):
    def __init__(self, trial: mpisweep.Trial) -> None:
        super().__init__()
        self.trial = trial
        self.model = nn.Sequential(
            nn.Linear(64, trial.params["width"]), nn.ReLU(), nn.Linear(trial.params["width"], 10)
        )

    def training_step(self, batch: list[torch.Tensor], index: int) -> torch.Tensor:
        images, labels = batch
        loss = functional.cross_entropy(self.model(images), labels)
        self.trial.report(self.global_step, loss=loss.item())
        # Lightning stops after this batch; mpisweep reruns the trial in the next run.
        self.trainer.should_stop |= self.trial.should_stop()
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=self.trial.params["lr"])


def train(trial: mpisweep.Trial) -> None:
    lightning.seed_everything(trial.seed % 2**32, verbose=False)
    digits = load_digits()
    data = TensorDataset(torch.tensor(digits.data / 16, dtype=torch.float32), torch.tensor(digits.target))
    trainer = lightning.Trainer(
        max_epochs=1, accelerator="auto", devices=1, logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(Classifier(trial), DataLoader(data, batch_size=trial.params["batch_size"], shuffle=True))
