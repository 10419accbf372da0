"""What a recipe is, and how a model, a guide and an objective are built from it."""
