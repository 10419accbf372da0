"""Batches of rows, and the checks that every row goes through."""
