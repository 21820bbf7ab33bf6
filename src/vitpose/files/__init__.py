"""Files: parsing and validation, atomic writing, and the files of a model by its name."""
