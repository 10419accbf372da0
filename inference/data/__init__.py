"""Batches of rows, and checks of data and labels."""
