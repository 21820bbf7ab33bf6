"""Images -> poses: the estimator, the pipeline, and loading both by name."""
