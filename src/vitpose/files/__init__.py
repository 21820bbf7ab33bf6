"""Files: parsed and checked, written whole or not at all, found by the name of a model."""
