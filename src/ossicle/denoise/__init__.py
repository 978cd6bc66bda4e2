"""Denoising without clean recordings: what is learnt from noise alone and from noisy recordings."""
