"""From a network to a file that other runtimes run: converted, quantised, checked against torch, written."""
