"""Sparse labels: what they keep, and a loss that takes them without making them dense."""

from __future__ import annotations

import pytest
import torch
from torch.utils.data import default_collate

from labelstore import LabelMapReader
from labelstore.errors import MapsError, OptionError
from labelstore.torch import SparseLabels, soft_cross_entropy, sparsify

SHAPES = [(5,), (2, 3), (2, 3, 4)]


def labels(*shape: int) -> torch.Tensor:
    return torch.softmax(3 * torch.randn(*shape, 12, generator=torch.Generator().manual_seed(0)), dim=-1)


@pytest.mark.parametrize("shape", SHAPES)
def test_all_classes_kept_is_the_label_itself(shape):
    soft = labels(*shape)
    torch.testing.assert_close(sparsify(soft, 12).dense(12), soft)


@pytest.mark.parametrize("most", [1, 4, 11])
def test_the_rest_is_spread_evenly(most):
    soft = labels(7)
    sparse = sparsify(soft, most)
    found = sparse.dense(12)
    torch.testing.assert_close(found.sum(dim=-1), torch.ones(7))
    ordered = soft.sort(dim=-1, descending=True)
    torch.testing.assert_close(found.gather(-1, ordered.indices[:, :most]), ordered.values[:, :most])
    others = found.gather(-1, ordered.indices[:, most:])
    torch.testing.assert_close(others, ordered.values[:, most:].mean(dim=-1, keepdim=True).expand_as(others))
    assert (sparse.classes.dtype, sparse.probabilities.dtype) == (torch.int64, torch.float32)


def test_pooled_labels_are_sparse_as_they_are(picture_store):
    reader = LabelMapReader(picture_store)
    soft = torch.from_numpy(reader.pool([0, 9], [(0.0, 0.0, 0.3, 0.3)] * 2))
    listed = max(len(set(reader[row].classes[:, :3, :3].ravel().tolist())) for row in (0, 9))
    assert listed < reader.num_classes
    torch.testing.assert_close(sparsify(soft, listed).dense(reader.num_classes), soft, atol=1e-7, rtol=1e-5)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_the_loss_is_cross_entropy(shape, reduction):
    logits = torch.randn(*shape, 12, generator=torch.Generator().manual_seed(1), requires_grad=True)
    soft = labels(*shape)
    flat = torch.nn.functional.cross_entropy(logits.reshape(-1, 12), soft.reshape(-1, 12), reduction=reduction)
    expected = flat if reduction == "mean" else flat.reshape(shape)
    torch.testing.assert_close(soft_cross_entropy(logits, soft, reduction=reduction), expected)
    sparse = sparsify(soft, 4)
    found = soft_cross_entropy(logits, sparse, reduction=reduction)
    theirs = soft_cross_entropy(logits, sparse.dense(12), reduction=reduction)
    torch.testing.assert_close(found, theirs)
    (ours,), (dense,) = (torch.autograd.grad(loss.sum(), logits, retain_graph=True) for loss in (found, theirs))
    torch.testing.assert_close(ours, dense)


def test_they_collate():
    items = [sparsify(one, 3) for one in labels(4)]
    batch = default_collate(items)
    assert isinstance(batch, SparseLabels)
    assert [part.shape for part in batch] == [(4, 3), (4, 3), (4,)]
    torch.testing.assert_close(batch.dense(12), torch.stack([item.dense(12) for item in items]))


@pytest.mark.parametrize("most", [0, 13])
def test_numbers_of_classes_that_are_none(most):
    with pytest.raises(OptionError, match=rf"most: expected 1\.\.12, .* got {most}"):
        sparsify(labels(1), most)


def test_what_does_not_fit_together():
    logits = torch.zeros(4, 12)
    with pytest.raises(MapsError, match=r"expected \[4, 12\] as the logits, got \[3, 12\]"):
        soft_cross_entropy(logits, labels(3))
    with pytest.raises(MapsError, match=r"got \[3, 12\]"):
        soft_cross_entropy(logits, sparsify(labels(3), 2))
    with pytest.raises(OptionError, match="reduction: expected 'mean' or 'none', got 'sum'"):
        soft_cross_entropy(logits, labels(4), reduction="sum")
