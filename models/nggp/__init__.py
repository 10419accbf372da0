"""The normalised generalised gamma process (NGGP): partitions, V = log U, and the mixture."""
