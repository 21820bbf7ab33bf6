"""Exports a network to a file for another runtime: converts it, quantises it, and compares the file with torch."""
