"""The user's own tables: settings that fit them, predictions, and what clusters are."""
