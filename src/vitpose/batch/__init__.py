"""Pose estimation on very many images, in shards that are each written whole or not at all.

    storage    directories and images on any file system that fsspec supports
    plan       which images belong to which shard; the settings of a run; which shards are done
    worker     one shard of images -> its two Parquet files, as bytes
    executors  shards -> results: in this process, in several, or on a Ray cluster
    job        the whole run

The result does not depend on how often a run was interrupted or where it ran: a shard depends on its images
alone, and its file either exists or does not.
"""
