"""An ordinary torchrun script without mpisweep: DistributedDataParallel on scikit-learn's digits.

torchrun --nproc-per-node=2 train.py --batch_size=64
"""

import argparse
import gc
import os
import time

import torch
import torch.distributed as dist
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, DistributedSampler, TensorDataset


def train(device: torch.device, batch_size: int, epochs: int) -> None:
    torch.manual_seed(0)
    ranks = dist.get_world_size()
    digits = load_digits()
    data = TensorDataset(torch.tensor(digits.data / 16, dtype=torch.float32), torch.tensor(digits.target))
    sampler: DistributedSampler[tuple[torch.Tensor, ...]] = DistributedSampler(data)
    loader = DataLoader(data, batch_size=batch_size // ranks, sampler=sampler)
    model = DistributedDataParallel(
        nn.Sequential(nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 10)).to(device)
    )
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for epoch in range(epochs):
        sampler.set_epoch(epoch)
        started = time.perf_counter()
        total = torch.zeros((), device=device)
        for images, labels in loader:
            loss = functional.cross_entropy(model(images.to(device)), labels.to(device))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.detach() / len(loader)
        dist.all_reduce(total)
        if dist.get_rank() == 0:
            seconds = time.perf_counter() - started
            print(
                f"epoch {epoch}: loss {total.item() / ranks:.4f}, {len(data) / seconds:.0f} images per second"
            )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--batch_size", type=int, default=64, help="of all ranks together")
    parser.add_argument("--epochs", type=int, default=3)
    options = parser.parse_args()

    on_gpu = torch.cuda.is_available()
    device = torch.device("cuda", int(os.environ["LOCAL_RANK"])) if on_gpu else torch.device("cpu")
    dist.init_process_group("nccl" if on_gpu else "gloo")
    train(device, options.batch_size, options.epochs)
    # PyTorch (2.14, gloo) sometimes aborts if the model is freed only while Python exits.
    gc.collect()
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
