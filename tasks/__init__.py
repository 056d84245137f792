"""The tasks this project brings, one file per benchmark."""
