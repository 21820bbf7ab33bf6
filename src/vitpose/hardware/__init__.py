"""Devices, thread limits, and sessions of ONNX Runtime."""
