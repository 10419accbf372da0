"""The normalised generalised gamma process: its law, the variable V = log U, and the mixture."""
