"""Train the small networks of `danskin.gan.features`: python docs/collect_features.py [digits mnist fashion_mnist].

Writes src/danskin/gan/weights/*.safetensors and prints the digests and test accuracies that stand in `FEATURE_NETS`.
"""

import hashlib
import sys

import torch
import torch.nn.functional as F
from safetensors.torch import save

from danskin.data import batch_indices, load, to_float
from danskin.gan.features import FEATURE_NETS, FOLDER, FeatureNet

EPOCHS = {"digits": 60, "mnist": 4, "fashion_mnist": 8}


def main(name: str) -> None:
    """Train and write one network."""
    data = load(name)
    torch.manual_seed(0)
    net = FeatureNet(FEATURE_NETS[name].shape)
    optimizer = torch.optim.AdamW(net.parameters(), 2e-3, weight_decay=1e-3)
    steps = EPOCHS[name] * (len(data.y_train) // 100)
    rate = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for epoch in range(EPOCHS[name]):
        for rows in batch_indices(len(data.y_train), 100, seed=0, epoch=epoch, drop_last=True):
            loss = F.cross_entropy(net(to_float(data.x_train[rows])), data.y_train[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            rate.step()
    with torch.no_grad():
        said = torch.cat([net(to_float(part)).argmax(1) for part in data.x_test.split(1000)])
    content = save({k: v.contiguous() for k, v in net.state_dict().items()})
    (FOLDER / f"{name}.safetensors").write_bytes(content)
    accuracy = (said == data.y_test).float().mean().item()
    print(name, hashlib.sha256(content).hexdigest(), f"{accuracy:.4f}", len(content), "bytes", flush=True)


for each in sys.argv[1:] or FEATURE_NETS:
    main(each)
