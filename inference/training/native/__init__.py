"""A compiled step as native calls on memory of its own, without Python between them."""
