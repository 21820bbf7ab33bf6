"""The network: crops in, heatmaps out. PyTorch only; independent of images, boxes and results."""
