"""Networks of the size of those that are served, with random weights.

A vision transformer of 16 x 16 patches and a residual network of bottlenecks, laid out
as ViT-B/16 and ResNet-50 are, for 1,000 classes; and images that no memory holds.
"""

import torch
from torch import nn
from torch.nn import functional
from torch.utils.data import Dataset


class VisionTransformer(nn.Module):
    """Patches of an image, a first token, and layers of attention."""

    def __init__(self, classes, size, width=768, depth=12, heads=12, patch=16):
        super().__init__()
        self.patches = nn.Conv2d(3, width, patch, patch)
        self.first = nn.Parameter(0.02 * torch.randn(1, 1, width))
        self.place = nn.Parameter(
            0.02 * torch.randn(1, 1 + (size // patch) ** 2, width)
        )
        self.layers = nn.ModuleList(_Layer(width, heads) for _ in range(depth))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, classes)

    def forward(self, x):
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.first.expand(x.shape[0], -1, -1), x], 1) + self.place
        for layer in self.layers:
            x = layer(x)
        return self.head(self.norm(x[:, 0]))


class _Layer(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        self.before, self.between = nn.LayerNorm(width), nn.LayerNorm(width)
        self.into, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.wide, self.narrow = (
            nn.Linear(width, 4 * width),
            nn.Linear(4 * width, width),
        )

    def forward(self, x):
        n, length, width = x.shape
        parts = self.into(self.before(x)).view(n, length, 3, self.heads, -1)
        found = functional.scaled_dot_product_attention(*parts.permute(2, 0, 3, 1, 4))
        x = x + self.out(found.transpose(1, 2).reshape(n, length, width))
        return x + self.narrow(functional.gelu(self.wide(self.between(x))))


class _Bottleneck(nn.Module):
    def __init__(self, inside, width, stride):
        super().__init__()
        self.main = nn.Sequential(
            *_convolution(inside, width, 1),
            nn.ReLU(),
            *_convolution(width, width, 3, stride),
            nn.ReLU(),
            *_convolution(width, 4 * width, 1),
        )
        same = inside == 4 * width and stride == 1
        shortcut = () if same else _convolution(inside, 4 * width, 1, stride)
        self.beside = nn.Sequential(*shortcut)

    def forward(self, x):
        return torch.relu(self.main(x) + self.beside(x))


def _convolution(inside, outside, size, stride=1):
    weights = nn.Conv2d(inside, outside, size, stride, size // 2, bias=False)
    return weights, nn.BatchNorm2d(outside)


def residual_network(classes, blocks=(3, 4, 6, 3), width=64):
    """Bottlenecks in four stages."""
    layers = [*_convolution(3, width, 7, 2), nn.ReLU(), nn.MaxPool2d(3, 2, 1)]
    inside = width
    for stage, n_blocks in enumerate(blocks):
        for block in range(n_blocks):
            stride = 2 if stage and not block else 1
            layers.append(_Bottleneck(inside, width * 2**stage, stride))
            inside = 4 * width * 2**stage
    ends = nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inside, classes)
    return nn.Sequential(*layers, *ends)


def make_network(name, classes, size, tiny=False):
    """Return the network of this name in eval mode."""
    torch.manual_seed(0)
    if name == "ViT-B/16":
        small = {"width": 48, "depth": 2, "heads": 2} if tiny else {}
        return VisionTransformer(classes, size, **small).eval()
    small = {"blocks": (1, 1, 1, 1), "width": 8} if tiny else {}
    return residual_network(classes, **small).eval()


NAMES = ("ResNet-50", "ViT-B/16")


class Images(Dataset):
    """Labelled images that are made when they are read, the same each time."""

    def __init__(self, rows, classes, size):
        self.rows, self.classes, self.size = rows, classes, size

    def __len__(self):
        return self.rows

    def __getitem__(self, row):
        random = torch.Generator().manual_seed(row)
        image = torch.rand(3, self.size, self.size, generator=random)
        return image, row % self.classes
