"""Poses as results: data, tables and drawings."""
