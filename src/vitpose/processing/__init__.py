"""The image processor with the interface of `transformers`."""
