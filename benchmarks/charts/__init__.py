"""Charts of clusterings, latent codes and training."""
