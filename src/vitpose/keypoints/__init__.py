"""What keypoints are: skeletons, mappings between them, and the declarations of datasets."""
