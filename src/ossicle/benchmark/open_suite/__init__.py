"""Tasks built from audio that any machine can fetch without an account: Debian packages."""
