"""Small networks that learn to tell attacked from clean."""

from collections.abc import Callable, Mapping

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from odefend import rng

BATCH, PREFIX = 64, "network."


def learn_to_tell(
    build: Callable[[], nn.Module], clean: Tensor, attacked: Tensor, epochs: int, learning_rate: float, seed: int
) -> dict[str, Tensor]:
    """The weights of a network with two logits, clean and attacked, trained on both kinds, which weigh the same: by Adam in
    batches of 64, by a seed alone. As tensors by name, for `restored`."""
    inputs = torch.cat([clean, attacked]).float()
    labels = torch.cat([torch.zeros(len(clean)), torch.ones(len(attacked))]).long().to(inputs.device)
    weight = torch.tensor([1.0, len(clean) / len(attacked)], device=inputs.device)
    with torch.random.fork_rng(), torch.enable_grad():
        torch.manual_seed(seed)
        network = build().to(inputs.device)
        optimizer = torch.optim.Adam(network.parameters(), learning_rate)
        for epoch in range(epochs):
            order = rng.stream(seed, "images", "order of training", epoch).permutation(len(inputs))
            for rows in np.array_split(order, -(-len(order) // BATCH)):
                some = torch.from_numpy(rows).to(inputs.device)
                # The mean over the batch's size, not over its weights: each image weighs the same in every batch.
                losses = F.cross_entropy(network(inputs[some]), labels[some], weight, reduction="none")
                optimizer.zero_grad()
                losses.mean().backward()
                optimizer.step()
    return {PREFIX + name: value.detach() for name, value in network.state_dict().items()}


def restored(build: Callable[[], nn.Module], state: Mapping[str, Tensor], inputs: Tensor) -> Tensor:
    """What a network of the learned weights says of inputs; differentiable."""
    with torch.device("meta"):  # to draw other weights would move the global generator
        network = build()
    weights = {
        name.removeprefix(PREFIX): value.to(inputs.device) for name, value in state.items() if name.startswith(PREFIX)
    }
    return torch.func.functional_call(network, weights, inputs.float())
