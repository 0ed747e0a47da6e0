"""Adam for images, of which some may leave."""

import torch

from odefend.tensors import Images, Mask


class Adam:
    """Adam (arXiv 1412.6980) on a set of images that shrinks; torch's optimizers cannot drop rows."""

    def __init__(self, w: Images, learning_rate: float) -> None:
        self.w, self.first, self.second = w.clone(), torch.zeros_like(w), torch.zeros_like(w)
        self.learning_rate, self.count = learning_rate, 0

    def step(self, gradient: Images) -> None:
        """One update."""
        self.count += 1
        self.first = 0.9 * self.first + 0.1 * gradient
        self.second = 0.999 * self.second + 0.001 * gradient.square()
        first, second = self.first / (1 - 0.9**self.count), self.second / (1 - 0.999**self.count)
        self.w = self.w - self.learning_rate * first / (second.sqrt() + 1e-8)

    def take(self, rows: Mask) -> "Adam":
        """Keep some of the images."""
        self.w, self.first, self.second = self.w[rows], self.first[rows], self.second[rows]
        return self
