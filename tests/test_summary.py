"""The summary: shapes, counts, and the bytes that the backward pass keeps."""

from typing import Any

import jax
import jax.numpy as jnp
import pytest

import fdl


def test_counts_and_kept_bytes():
    model = fdl.serial(fdl.dense(7), fdl.relu(), fdl.dropout(0.5), out=fdl.dense(3))
    table = fdl.summary(model, (5,))
    by_name = {row.name: row for row in table.rows}
    assert [row.name for row in table.rows] == list(model.names)
    assert by_name["dense_0"].parameters == 5 * 7 + 7 and by_name["out"].parameters == 7 * 3 + 3
    assert table.parameters == 66
    assert by_name["dense_0"].shape == (7,) and by_name["out"].shape == (3,)
    assert by_name["dense_0"].kept == 5 * 4, "its input; the weights are not counted"
    assert by_name["relu_1"].kept == 7 * 4
    assert by_name["dropout_2"].kept == 7, "a mask of one byte per entry"
    assert by_name["out"].kept == 7 * 4
    assert table.kept == 20 + 28 + 7 + 28


def test_an_array_that_two_layers_keep_counts_once():
    model = fdl.parallel(fdl.dense(3), fdl.dense(3))
    assert fdl.summary(model, (5,)).kept == 5 * 4


def test_nested_and_single():
    model = fdl.serial(block=fdl.serial(fdl.dense(4), fdl.tanh()), out=fdl.dense(2))
    table = fdl.summary(model, (3,), jnp.bfloat16)
    assert [row.name for row in table.rows] == ["block/dense_0", "block/tanh_1", "out"]
    assert table.rows[0].dtype == "bfloat16" and table.rows[0].parameters == 16
    assert fdl.summary(fdl.dense(2), (3,)).rows[0].parameters == 8


def test_text():
    text = str(fdl.summary(fdl.serial(fdl.dense(1000), fdl.relu(), fdl.dense(10)), (784,)))
    assert "785,000" in text and "float32[1000]" in text and "4.0 kB" in text and "per example" in text


def test_flops_and_receptive_fields():
    model = fdl.serial(
        fdl.conv(4, (3, 3), strides=2), fdl.relu(), fdl.depthwise_conv((2, 3), padding=2), block=fdl.serial(fdl.max_pool(2)),
        dilated=fdl.conv(3, (3, 1), dilation=2), flat=fdl.flatten(), out=fdl.dense(5),
    )  # fmt: skip
    table = fdl.summary(model, (33, 31, 2))
    rows = {row.name: row for row in table.rows}
    assert rows["conv_0"].flops == 2 * (17 * 16) * (3 * 3 * 2) * 4
    assert rows["depthwise_conv_2"].flops == 2 * (20 * 18) * (2 * 3) * 4
    assert rows["out"].flops == 2 * (10 * 9 * 3) * 5 and rows["relu_1"].flops == rows["block/max_pool_0"].flops == 0
    assert table.flops == sum(row.flops for row in table.rows)
    fields = {name: row.receptive for name, row in rows.items()}
    assert fields == {
        "conv_0": (3, 3), "relu_1": (3, 3), "depthwise_conv_2": (5, 7), "block/max_pool_0": (7, 9), "dilated": (23, 9),
        "flat": None, "out": None,
    }  # fmt: skip
    assert "receptive field" in str(table) and "23x9" in str(table)
    assert "receptive field" not in str(fdl.summary(fdl.dense(2), (3,)))


@pytest.mark.parametrize(
    ("features", "kernel", "strides", "dilation", "groups", "shape"),
    [(6, (3, 2), (2, 1), (1, 2), 2, (9, 8, 4)), (5, (2, 2, 3), (1, 1, 1), (1, 1, 1), 1, (4, 5, 6, 3)), (6, (4,), (1,), (1,), 2, (9, 2))],
)  # fmt: skip
def test_flops_are_those_of_xla(features, kernel, strides, dilation, groups, shape):
    """Without padding, which XLA does not count."""
    layer = fdl.conv(features, kernel, strides, "VALID", dilation, groups, bias=False)
    letters = "DHW"[-len(kernel) :]
    numbers = (f"N{letters}C", f"{letters}IO", f"N{letters}C")
    w = jnp.ones((*kernel, shape[-1] // groups, features), jnp.float32)
    run = lambda x: jax.lax.conv_general_dilated(
        x, w, strides, "VALID", rhs_dilation=dilation, dimension_numbers=numbers, feature_group_count=groups
    )
    counted: Any = jax.jit(run).lower(jnp.ones((1, *shape), jnp.float32)).cost_analysis()
    assert fdl.summary(layer, shape).flops == counted["flops"]


def test_flops_of_transposed_and_separable_convolutions():
    rows = fdl.summary(fdl.conv_transpose(6, (3, 2), (2, 1), groups=2), (5, 4, 4)).rows
    assert rows[0].flops == 2 * (5 * 4 * 4) * (3 * 2) * (6 // 2), (
        "every entry of x meets every weight of its group once"
    )
    rows = fdl.summary(fdl.serial(fdl.separable_conv(5, (3, 3), multiplier=2)), (7, 6, 4)).rows
    assert [row.flops for row in rows] == [2 * (7 * 6) * 9 * 8, 2 * (7 * 6) * 8 * 5]


CHAINS = {
    "strides and dilation": (fdl.conv(2, (3,), strides=2), fdl.conv(2, (2,), dilation=3), fdl.avg_pool((2,))),
    "pools": (fdl.avg_pool((3,), strides=2), fdl.relu(), fdl.conv(1, (3,), padding="VALID"), fdl.avg_pool(2, 1)),
    "gaps": (fdl.conv(1, (1,), strides=3), fdl.conv(2, (2,), dilation=2, strides=2), fdl.conv(1, (3,))),
    "what keeps places apart": (
        fdl.dense(3), fdl.layer_norm(shift=True), fdl.separable_conv(2, (3,)), fdl.rms_norm(), fdl.dense(2),
        fdl.batch_norm(), fdl.conv(2, (4,), strides=2), fdl.conv(2, (2,)),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CHAINS)
def test_the_receptive_field_is_where_the_gradient_is_not_zero(name):
    model = fdl.serial(*CHAINS[name])
    params, state = model.init(jax.random.key(0), (61, 2))
    positive = jax.tree.map(lambda a: 0.1 + jnp.abs(a), params)  # so that nothing cancels
    x = jax.random.uniform(jax.random.key(1), (1, 61, 2), jnp.float32)
    of = jax.jit(jax.grad(lambda x: model.apply(positive, state, x)[0][0, 4, 0]))
    seen = jnp.flatnonzero(jnp.abs(of(x)[0]).sum(axis=1))
    assert (int(seen[-1] - seen[0]) + 1,) == fdl.summary(model, (61, 2)).rows[-1].receptive


@pytest.mark.parametrize(
    "first",
    [fdl.conv_transpose(2, (3,), 2), fdl.instance_norm(), fdl.group_norm(1), fdl.layer_norm(dims=2)],
    ids=str,
)
def test_no_receptive_field_after_what_mixes_places(first):
    rows = fdl.summary(fdl.serial(fdl.relu(), first, fdl.conv(2, (3,))), (9, 2)).rows
    assert all(row.receptive is None for row in rows)


def test_branches_have_no_single_receptive_field():
    model = fdl.serial(fdl.residual(fdl.conv(2, (3,))), fdl.conv(2, (3,)))
    assert all(row.receptive is None for row in fdl.summary(model, (9, 2)).rows)
