"""How fast a training step is, and how much gradient estimators vary."""
