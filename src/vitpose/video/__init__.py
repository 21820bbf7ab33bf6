"""Video: frames -> poses with track IDs, annotated videos and tables.

    reading      files, cameras, streams, image sequences -> Frames with exact times
    run_ahead    iterates in a thread, a bounded number of items ahead
    stream       Frames -> PoseFrames: detection on every n-th frame, boxes propagated in between
    propagation  boxes for frames that the detector does not run on
    tracking     track IDs from boxes and poses
    smoothing    the One-Euro filter
    writing      frames -> MP4 with the audio and the times of the source
    recording    PoseFrames -> JSON lines, CSV, Parquet, COCO, PoseTrack, DeepLabCut

Importing this package loads no video library; each module imports the libraries it uses on demand.
"""
