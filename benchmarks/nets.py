"""The nets that are timed: the packaged digits-oon, and an OON of the papers' width on pictures of MNIST's size."""

from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor

import odefend
from odefend.models import ODENet

CACHE = Path(__file__).parent / ".cache" / "oon-64-28x28.safetensors"
STEPS, BATCH, PEAK = 240, 64, 5e-3


def digits_oon() -> tuple[ODENet, Tensor]:
    """The packaged net and its test images, 8x8."""
    net = odefend.load("digits-oon")
    assert isinstance(net, ODENet)
    return net, odefend.digits("test").images


def oon_64() -> tuple[ODENet, Tensor]:
    """OON at K = 64 on scikit-learn's digits enlarged to 28x28, trained briefly for this purpose; and test images."""
    net = odefend.MODELS["oon"](1, 64)
    assert isinstance(net, ODENet)
    if not CACHE.exists():
        _train(net)
    net.load_state_dict(load_file(CACHE))
    return net.eval(), _enlarged(odefend.digits("test").images)


def _enlarged(images: Tensor) -> Tensor:
    return F.interpolate(images, size=(28, 28), mode="bilinear").clamp(0, 1)


def _train(net: ODENet) -> None:
    print(f"training the net to be timed for {STEPS} steps, once (about 3 minutes)", flush=True)
    train, test = odefend.digits("train"), odefend.digits("test")
    images, generator = _enlarged(train.images), torch.Generator().manual_seed(0)
    optimizer = torch.optim.Adam(net.parameters(), PEAK)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, PEAK, total_steps=STEPS)
    net.train()
    for _ in range(STEPS):
        chosen = torch.randint(len(images), (BATCH,), generator=generator)
        loss = F.cross_entropy(net(images[chosen]), train.labels[chosen])
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    net.eval()
    with torch.no_grad():
        right = (net(_enlarged(test.images)).argmax(1) == test.labels).float().mean().item()
    print(f"trained: {right:.1%} of {len(test)} test images right", flush=True)
    CACHE.parent.mkdir(exist_ok=True)
    save_file(net.state_dict(), CACHE, {"test_accuracy": f"{right:.4f}", "steps": str(STEPS)})
