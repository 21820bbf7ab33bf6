"""Devices by name, and how many threads a process uses."""
