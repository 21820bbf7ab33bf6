"""The network: heatmaps from crops. Torch only; knows no image, box or result."""
