"""Any pytree as one tensor and back."""

import collections

import pytest
import torch
from torch.utils import _pytree as pytree

import adamode
from adamode.solvers.step.field import layout_of

Point = collections.namedtuple("Point", "x y")

TREES = {
    "tensor": lambda: torch.randn(2, 3),
    "zero-dimensional": lambda: torch.tensor(1.5),
    "tuple": lambda: (torch.randn(2, 3), torch.randn(4)),
    "list": lambda: [torch.randn(2), torch.randn(1, 1)],
    "dict": lambda: {"b": torch.randn(2), "a": torch.randn(3, 2)},
    "nested": lambda: {"h": (torch.randn(2), [torch.randn(1)]), "c": torch.tensor(0.5)},
    "namedtuple": lambda: Point(torch.randn(2), torch.randn(3)),
    "with an empty leaf": lambda: (torch.randn(0, 3), torch.randn(2)),
}


@pytest.mark.parametrize("name", TREES)
def test_unpack_is_the_inverse_of_pack(name):
    tree = TREES[name]()
    layout = layout_of(tree)
    back = layout.unpack(layout.pack(tree))
    assert pytree.tree_structure(back) == pytree.tree_structure(tree)
    for a, b in zip(pytree.tree_leaves(back), pytree.tree_leaves(tree), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("name", TREES)
def test_axes_in_front_stay_in_front(name):
    tree = TREES[name]()
    layout = layout_of(tree)
    z = layout.pack(tree)
    back = layout.unpack(torch.stack((z, 2 * z, 3 * z)))
    for a, b in zip(pytree.tree_leaves(back), pytree.tree_leaves(tree), strict=True):
        assert a.shape == (3, *b.shape)
        assert torch.equal(a[2], 3 * b)


def test_a_single_tensor_is_not_copied():
    y = torch.randn(3, 4)
    layout = layout_of(y)
    assert layout.pack(y) is y
    assert layout.unpack(y) is y


def test_a_batched_layout_keeps_the_batch_in_front():
    tree = {"a": torch.randn(5, 2, 3), "b": torch.randn(5)}
    layout = layout_of(tree, batched=True)
    z = layout.pack(tree)
    assert z.shape == (5, 7)
    back = layout.unpack(z)
    assert torch.equal(back["a"], tree["a"])
    assert torch.equal(back["b"], tree["b"])
    assert layout.unpack(torch.stack((z, z)))["a"].shape == (2, 5, 2, 3)


def test_a_tree_is_matched_by_its_names_not_by_its_order():
    layout = layout_of({"b": torch.zeros(2), "a": (torch.zeros(1), torch.zeros(3))})
    assert layout.matched({"a": [1, 2], "b": 3}) == [3, 1, 2]
    for other in (
        {"a": [1, 2], "c": 3},
        {"b": 3},
        [3, [1, 2]],
        {"a": [1, 2, 4], "b": 3},
        5,
        {"a": 1, "b": 3},
    ):
        assert layout.matched(other) is None


def test_packing_is_differentiable():
    tree = (torch.randn(2, 3, requires_grad=True), torch.randn(4, requires_grad=True))
    layout = layout_of(tree)
    a, b = layout.unpack(layout.pack(tree) * 2)
    (a.sum() + 3 * b.sum()).backward()
    assert torch.equal(tree[0].grad, torch.full((2, 3), 2.0))
    assert torch.equal(tree[1].grad, torch.full((4,), 6.0))


@pytest.mark.parametrize("empty", [(), [], {}])
def test_a_state_without_a_tensor_is_an_error(empty):
    with pytest.raises(adamode.ArgumentError, match="holds no tensor"):
        layout_of(empty)


@pytest.mark.parametrize("leaf", [1.0, "a", None])
def test_a_leaf_that_is_no_tensor_is_a_type_error(leaf):
    with pytest.raises(adamode.ArgumentTypeError, match=r"must be tensors|holds"):
        layout_of((torch.ones(2), leaf) if leaf is not None else (torch.ones(2), object()))


def test_several_dtypes_are_an_error_that_names_them():
    with pytest.raises(adamode.ArgumentError, match=r"torch\.float32, torch\.float64"):
        layout_of((torch.ones(2), torch.ones(2, dtype=torch.float64)))


def test_batches_of_several_sizes_are_an_error_per_sample():
    with pytest.raises(adamode.ArgumentError, match="axis 0"):
        layout_of((torch.ones(2, 3), torch.ones(4)), batched=True)
    with pytest.raises(adamode.ArgumentError, match="axis 0"):
        layout_of((torch.ones(2, 3), torch.tensor(1.0)), batched=True)
