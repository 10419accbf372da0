"""Data sets in memory, with their splits, labels and binarisation."""
