"""Video: frames in, poses with identities out, frames and tables written.

    reading     files, cameras, streams, image sequences -> Frames with exact times
    ahead       work done in a thread of its own, a bounded way ahead
    stream      Frames -> PoseFrames: detection every n frames, boxes carried over in between
    carrying    boxes for frames that no detector looks at
    tracking    who is who from frame to frame
    smoothing   the One-Euro filter
    writing     frames -> mp4, with the source's sound and timing
    recording   PoseFrames -> JSON lines, CSV, Parquet, COCO, PoseTrack, DeepLabCut

Importing this package loads no video library; each part loads its own when it is used.
"""
