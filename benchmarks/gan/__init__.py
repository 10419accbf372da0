"""InfoGAN, a baseline that draws images by category and has no density."""
