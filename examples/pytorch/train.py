"""An ordinary PyTorch script without mpisweep: scikit-learn's digits, one hidden layer."""

import argparse

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--batch_size", type=int, default=64)
    parser.add_argument("--lr", type=float, default=0.1)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()

    torch.manual_seed(options.seed)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    digits = load_digits()
    images = torch.tensor(digits.data / 16, dtype=torch.float32, device=device)  # (1797, 64)
    labels = torch.tensor(digits.target, device=device)  # (1797,)
    model = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10)).to(device)
    optimizer = torch.optim.SGD(model.parameters(), lr=options.lr)
    for epoch in range(options.epochs):
        for batch in torch.randperm(len(images)).split(options.batch_size):
            loss = functional.cross_entropy(model(images[batch]), labels[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        with torch.no_grad():
            logits = model(images)
            loss = functional.cross_entropy(logits, labels)
            accuracy = (logits.argmax(1) == labels).float().mean().item()
        print(f"epoch {epoch}: loss {loss.item():.4f}, accuracy {accuracy:.4f}")


if __name__ == "__main__":
    main()
