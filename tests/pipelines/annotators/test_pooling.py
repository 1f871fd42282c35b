"""Every way of pooling that is recognised, on networks so small that each location can be worked out by hand."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from labelstore.errors import AnnotatorError
from labelstore.pipelines.annotators.dense import find_route
from labelstore.pipelines.annotators.locations import Locations, guess_prefix, token_locations

CELL, CHANNELS, CLASSES = 4, 6, 5
Pool = Callable[[Tensor], Tensor]


class Patches(nn.Module):
    """Non-overlapping patches, `pool`, then a head that is not linear: every location depends on its own patch only."""

    def __init__(self, pool: Pool) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, CHANNELS, CELL, CELL)
        self.head = nn.Sequential(nn.Linear(CHANNELS, CHANNELS), nn.Tanh(), nn.Linear(CHANNELS, CLASSES))
        self.pool = pool

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.pool(self.stem(x)))


def tokens(x: Tensor) -> Tensor:
    return x.flatten(2).transpose(1, 2)


def with_prefix(x: Tensor, count: int = 1) -> Tensor:
    sequence = tokens(x)
    return torch.cat([sequence.mean(1, keepdim=True).expand(-1, count, -1), sequence], dim=1)


def squeezed(x: Tensor) -> Tensor:
    """A squeeze-and-excitation block pools too, but before the last pooling."""
    return (x * x.mean((2, 3), keepdim=True).sigmoid()).mean((2, 3))


POOLS: dict[str, Pool] = {
    "adaptive_avg_pool2d": lambda x: functional.adaptive_avg_pool2d(x, 1).flatten(1),
    "AdaptiveAvgPool2d": lambda x: nn.AdaptiveAvgPool2d((1, 1))(x).flatten(1),
    "adaptive_avg_pool2d by keyword": lambda x: functional.adaptive_avg_pool2d(input=x, output_size=(1, 1))[:, :, 0, 0],
    "adaptive_avg_pool1d": lambda x: functional.adaptive_avg_pool1d(x.flatten(2), 1).flatten(1),
    "AdaptiveAvgPool1d": lambda x: nn.AdaptiveAvgPool1d(1)(x.flatten(2)).flatten(1),
    "avg_pool2d": lambda x: functional.avg_pool2d(x, x.shape[2:]).flatten(1),
    "AvgPool2d": lambda x: nn.AvgPool2d(x.shape[-1])(x).flatten(1),
    "mean of NCHW": lambda x: x.mean((2, 3)),
    "mean of NCHW, negative axes": lambda x: x.mean(dim=[-1, -2], keepdim=True).flatten(1),
    "torch.mean": lambda x: torch.mean(x, (2, 3)),
    "mean of NHWC": lambda x: x.permute(0, 2, 3, 1).mean(dim=(1, 2)),
    "mean of tokens": lambda x: tokens(x).mean(1),
    "mean of tokens, axis kept": lambda x: tokens(x).mean(dim=1, keepdim=True).squeeze(1),
    "mean of tokens behind a class token": lambda x: with_prefix(x)[:, 1:].mean(1),
    "class token": lambda x: with_prefix(x)[:, 0],
    "class token, three indices": lambda x: with_prefix(x)[:, 0, :],
    "class token before registers": lambda x: with_prefix(x, 5)[:, 0],
    "select": lambda x: with_prefix(x).select(1, 0),
    "torch.select": lambda x: torch.select(with_prefix(x), dim=1, index=0),
    "after squeeze and excitation": squeezed,
}


@pytest.fixture(autouse=True)
def seeded() -> Iterator[None]:
    with torch.random.fork_rng(devices=[]), torch.inference_mode():
        torch.manual_seed(0)
        yield


@pytest.mark.parametrize("pool", POOLS)
def test_every_location_goes_through_the_head(pool: str) -> None:
    module = Patches(POOLS[pool]).eval()
    batch = torch.randn(2, 3, 4 * CELL, 4 * CELL)
    dense = find_route(module, batch, module(batch), pool).dense
    other = torch.randn(3, 3, 4 * CELL, 4 * CELL)  # another batch, of another length
    features = module.stem(other)
    if pool == "after squeeze and excitation":
        features = features * features.mean((2, 3), keepdim=True).sigmoid()
    for row in range(4):
        for column in range(4):
            expected = module.head(features[:, :, row, column])
            torch.testing.assert_close(dense(other)[:, :, row, column], expected)


def test_map_hot_in_the_top_half_only() -> None:
    module = Patches(POOLS["mean of NHWC"]).eval()
    cold = torch.zeros(1, 3, 4 * CELL, 4 * CELL)
    hot = cold.clone()
    hot[:, :, : 2 * CELL] = 1
    batch = torch.randn(2, 3, 4 * CELL, 4 * CELL)
    route = find_route(module, batch, module(batch), "toy")
    changed = (route.dense(hot) - route.dense(cold)).abs().sum((0, 1)) > 1e-6
    assert changed.tolist() == [[True] * 4, [True] * 4, [False] * 4, [False] * 4]


REFUSED: dict[str, Pool] = {
    "no pooling": lambda x: x[:, :, 0, 0],
    "maximum": lambda x: x.amax((2, 3)),
    "pooled to 2x2": lambda x: functional.adaptive_avg_pool2d(x, 2)[:, :, 0, 0],
    "window smaller than the map": lambda x: functional.avg_pool2d(x, 2)[:, :, 0, 0],
    "another weight a location": lambda x: functional.avg_pool2d(x, x.shape[2:], divisor_override=3).flatten(1),
    "columns, then rows": lambda x: x.mean(3).mean(2),
    "two poolings side by side": lambda x: x.mean((2, 3)) + functional.adaptive_avg_pool2d(x, 1).flatten(1),
    "patch token": lambda x: tokens(x)[:, 3],
    "everything": lambda x: x.mean(),
}


@pytest.mark.parametrize("pool", REFUSED)
def test_other_reductions_are_refused(pool: str) -> None:
    module = Patches(REFUSED[pool]).eval()
    if pool == "everything":
        module.head = nn.Identity()
    batch = torch.randn(2, 3, 4 * CELL, 4 * CELL)
    with pytest.raises(AnnotatorError, match="toy has no per-location head"):
        find_route(module, batch, torch.zeros(2, CLASSES) if pool == "everything" else module(batch), "toy")


def test_pooling_of_one_location_is_refused() -> None:
    module = Patches(POOLS["mean of NCHW"]).eval()
    batch = torch.randn(2, 3, CELL, CELL)
    with pytest.raises(AnnotatorError, match="more than one location"):
        find_route(module, batch, module(batch), "toy")


class Interface(Patches):
    """The same network behind timm's interface, its features in one of timm's layouts."""

    num_features = CHANNELS

    def __init__(self, arrange: Pool, pool: Pool) -> None:
        super().__init__(pool)
        self.arrange = arrange

    def forward_features(self, x: Tensor) -> Tensor:
        return self.arrange(self.stem(x))

    def forward_head(self, x: Tensor) -> Tensor:
        return self.head(self.pool(x))

    def forward(self, x: Tensor) -> Tensor:
        return self.forward_head(self.forward_features(x))


INTERFACES: dict[str, tuple[Pool, Pool]] = {
    "NCHW": (lambda x: x, lambda x: x.mean((2, 3))),
    "NHWC": (lambda x: x.permute(0, 2, 3, 1), lambda x: x.mean((1, 2))),
    "tokens": (tokens, lambda x: x.mean(1)),
    "class token": (with_prefix, lambda x: x[:, 0]),
    "patches behind a class token": (with_prefix, lambda x: x[:, 1:].mean(1)),
    "class token and one more": (lambda x: with_prefix(x, 2), lambda x: (x[:, 0] + x[:, 1]) / 2),
}


@pytest.mark.parametrize("layout", INTERFACES)
def test_features_then_head(layout: str) -> None:
    module = Interface(*INTERFACES[layout]).eval()
    batch = torch.randn(2, 3, 4 * CELL, 4 * CELL)
    route = find_route(module, batch, module(batch), layout)
    features = module.stem(batch)
    expected = module.head(features.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
    torch.testing.assert_close(route.dense(batch), expected)
    assert route.map_size == (4, 4)


def test_interface_that_lies_falls_back_to_the_pooling() -> None:
    class Lying(Interface):
        def forward_head(self, x: Tensor) -> Tensor:
            return super().forward_head(x) + 1

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.pool(self.stem(x)))

    module = Lying(lambda x: x, POOLS["mean of NCHW"]).eval()
    batch = torch.randn(2, 3, 4 * CELL, 4 * CELL)
    route = find_route(module, batch, module(batch), "lying")
    torch.testing.assert_close(route.dense(batch)[:, :, 1, 2], module.head(module.stem(batch)[:, :, 1, 2]))


def test_grid_of_tokens() -> None:
    assert token_locations(196, 0) == Locations("NLC", (14, 14))
    assert token_locations(1 + 8, 1, grid=(2, 4)) == Locations("NLC", (2, 4), prefix=1)
    assert token_locations(9, 0, grid=(2, 4)) == Locations("NLC", (3, 3))
    assert token_locations(198, 1) is None
    assert token_locations(1, 1) is None


@pytest.mark.parametrize(
    ("length", "least", "prefix"),
    [(197, 1, 1), (197, 0, 1), (196, 0, 0), (201, 1, 5), (261, 1, 5), (1, 1, None), (224, 1, None)],
)
def test_tokens_before_the_grid(length: int, least: int, prefix: int | None) -> None:
    assert guess_prefix(length, least) == prefix
