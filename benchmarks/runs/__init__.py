"""A recipe trained under one seed, and the folder that holds the result."""
