"""A shuffled order without a sort: a keyed bijection of the numbers 0 .. n-1.

Write a number as left * b + right, with left < a, right < b and a b >= n. A round adds to one half a function of the other,
which subtracting it undoes; so the rounds together map the a b numbers one to one, whatever the round function F is:

    left <- (left + F(right)) mod a        right <- (right + F(left)) mod b

Few numbers lie at n or above: a is chosen, not far from b, so that a b - n is small. What lands there is mapped
again until it lands below, which keeps the map one to one (cycle walking). Eight rounds of a multiply-xorshift F with
fresh keys.

Why not `jax.random.permutation`: it sorts, which on a CPU was the largest cost of an epoch. Microseconds for n = 1,408, 6,000
and 60,000: sort 280, 1,853, 25,300; this 9, 26, 145. Sources: Luby & Rackoff 1988; Black & Rogaway 2002, section 4.
"""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp

_ROUNDS = 8
_FEW = 64  # with fewer the halves are too small to mix well, and sorting costs nothing


def permutation(key: Any, n: int) -> jax.Array:
    """A pseudo-random permutation of 0 .. n-1, int32 [n], a pure function of the key."""
    if n < _FEW:
        return jax.random.permutation(key, n).astype(jnp.int32)
    a, b = _factors(n)
    keys = jax.random.bits(key, (_ROUNDS,), jnp.uint32)
    left, right = (jax.lax.broadcasted_iota(jnp.uint32, (a, b), axis) for axis in (0, 1))
    for i in range(0, _ROUNDS, 2):
        left = _added(left, _mixed(right, keys[i]), a)
        right = _added(right, _mixed(left, keys[i + 1]), b)
    x = (left * b + right).astype(jnp.int32)  # [a, b]
    # A loop of at least two turns, although few or none are needed: XLA joins what is written out, or loops of one turn, with
    # the reshape and the cut, and at most lengths then finds no vector instructions: 10 to 20 times slower.
    x = jax.lax.fori_loop(
        n, max(a * b, n + 2), lambda number, x: jnp.where(x == number, x[number // b, number % b], x), x
    )
    return x.reshape(-1)[:n]


@functools.lru_cache(maxsize=256)
def _factors(n: int) -> tuple[int, int]:
    """(a, b), both large enough to mix, with a small a b >= n."""
    root = math.isqrt(n)
    # Not far from a square: where a is 2, neighbours stay together ten times as often as chance would have it.
    lowest = max(3 * root // 4, -(-n // 65536))  # `_added` scales 16 bits
    candidates = range(root + 1, lowest - 1, -1)
    a = min(candidates, key=lambda a: -n % a)
    return a, -(-n // a)


def _added(x, hashed, modulus):
    # 16 of the 32 bits, scaled to 0 .. modulus-1
    x = x + ((hashed >> 16) * jnp.uint32(modulus) >> 16)
    return jnp.where(x >= modulus, x - modulus, x)


def _mixed(x, key):
    """The round function: multiplications and xorshifts that spread every bit, as hash functions end."""
    x = x * jnp.uint32(0x9E3779B1) + key
    x = (x ^ (x >> 15)) * jnp.uint32(0x85EBCA77)
    x = (x ^ (x >> 13)) * jnp.uint32(0xC2B2AE3D)
    return x ^ (x >> 16)
