"""Very many images: shards of a plan, worked on by processes or a cluster, each written whole or not at all.

    place      folders and images on any file system that fsspec knows
    plan       which images make which shard; what a run was begun with; which shards are done
    worker     one shard of images -> its two Parquet files, as bytes
    executors  shards -> results: in this process, in several, or on a Ray cluster
    job        all of it together

The result is the same, however often a run was interrupted and wherever it ran: a shard depends on its
images alone, and its file is there or not.
"""
