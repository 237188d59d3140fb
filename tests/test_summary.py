"""The summary: shapes, counts, and the bytes that the backward pass keeps."""

import jax.numpy as jnp

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
