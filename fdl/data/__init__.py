"""Readers of real data, and the digits that come with the package. Everything is numpy; nothing is downloaded."""

from fdl.data.digits import digits as digits
