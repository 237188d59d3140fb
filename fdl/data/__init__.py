"""Readers of real data, streams of it, and the digits that come with the package. Everything is numpy; nothing is downloaded."""

from fdl.data.cifar10 import cifar10 as cifar10
from fdl.data.cifar10 import cifar10_files as cifar10_files
from fdl.data.csv import Table as Table
from fdl.data.csv import csv as csv
from fdl.data.digits import digits as digits
from fdl.data.idx import idx as idx
from fdl.data.mnist import mnist as mnist
from fdl.data.npy import npy as npy
from fdl.data.npz import npz as npz
from fdl.data.stream import Chunk as Chunk
from fdl.data.stream import Stream as Stream
from fdl.data.stream import stream as stream
from fdl.data.text import text as text
