"""Readers of real data, streams of it, and the digits that come with the package. Everything is numpy; nothing is downloaded."""

from fdl.data.cifar10 import cifar10, cifar10_files
from fdl.data.csv import Table, csv
from fdl.data.digits import digits
from fdl.data.idx import idx
from fdl.data.mnist import mnist
from fdl.data.npy import npy
from fdl.data.npz import npz
from fdl.data.stream import Chunk, Stream, stream
from fdl.data.text import text

__all__ = [
    "Chunk",
    "Stream",
    "Table",
    "cifar10",
    "cifar10_files",
    "csv",
    "digits",
    "idx",
    "mnist",
    "npy",
    "npz",
    "stream",
    "text",
]
