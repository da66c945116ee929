"""New images from a trained model: priors fitted to its latents, sampling, and ways from one image to another."""
