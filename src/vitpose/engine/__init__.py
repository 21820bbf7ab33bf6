"""Engines: what runs the network. All are behind one protocol, `Engine`."""
