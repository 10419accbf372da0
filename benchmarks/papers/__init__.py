"""The papers: one file each, with its recipes, published figures, scores and charts."""
