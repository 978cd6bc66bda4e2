"""Training, running and scoring systems that take mixtures apart."""
