"""A shuffled order without a sort: a keyed bijection of 0 .. n-1, computed entry by entry on the device.

A Feistel network maps 2b-bit numbers one to one whatever its round function F is, since each round is undone by itself:

    (left, right) -> (right, left xor F(right, round key))

With 2b bits just above log2(n), numbers that land at n or above are mapped again until they land below ("cycle walking"),
which keeps the map one to one on 0 .. n-1. Eight rounds of a multiply-xorshift F with fresh round keys.

Why not `jax.random.permutation`: it sorts, which on a CPU was the largest cost of an epoch. Microseconds for n = 1,408, 6,000
and 60,000: sort 280, 1,853, 25,300; this 63, 224, 683. Sources: Luby & Rackoff 1988; Black & Rogaway 2002 (cycle walking).
"""

from typing import Any

import jax
import jax.numpy as jnp

_ROUNDS = 8


def permutation(key: Any, n: int) -> jax.Array:
    """A pseudo-random permutation of 0 .. n-1, int32 [n], a pure function of the key."""
    half = (max(2, (n - 1).bit_length()) + 1) // 2
    low = jnp.uint32((1 << half) - 1)
    round_keys = jax.random.bits(key, (_ROUNDS,), jnp.uint32)

    def encrypt(x):
        left, right = x >> half, x & low
        for i in range(_ROUNDS):
            left, right = right, left ^ (_mixed(right, round_keys[i]) & low)
        return left << half | right

    start = encrypt(jnp.arange(n, dtype=jnp.uint32))
    walk = lambda x: jnp.where(x >= n, encrypt(x), x)
    return jax.lax.while_loop(lambda x: (x >= n).any(), walk, start).astype(jnp.int32)


def _mixed(x, round_key):
    """The round function: multiplications and xorshifts that spread every bit (the finaliser of MurmurHash3)."""
    x = x * jnp.uint32(0x9E3779B1) + round_key
    x = (x ^ (x >> 15)) * jnp.uint32(0x85EBCA77)
    x = (x ^ (x >> 13)) * jnp.uint32(0xC2B2AE3D)
    return x ^ (x >> 16)
