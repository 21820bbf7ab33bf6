"""The network: heat maps from crops. Torch only; knows no picture, box or result."""
