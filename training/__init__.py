"""Training of the demo model: pictures that it draws itself, an autoencoder, a text encoder and a denoiser."""
