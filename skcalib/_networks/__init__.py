"""Frozen networks and the rows of inputs they are run on."""
