"""Scores of trained pairs on test rows."""
