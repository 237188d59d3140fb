"""Readers of real data, and the digits that come with the package. Everything is numpy; nothing is downloaded."""

from fdl.data.cifar10 import cifar10 as cifar10
from fdl.data.cifar10 import cifar10_files as cifar10_files
from fdl.data.digits import digits as digits
from fdl.data.mnist import mnist as mnist
from fdl.data.text import text as text
