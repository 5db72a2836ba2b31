"""Coverage-guided fuzz targets of everything that reads a stranger's files; run `make fuzz`."""
