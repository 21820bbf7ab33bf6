"""Boxes, warps and heatmaps: the arithmetic between an image and a network, in NumPy."""
