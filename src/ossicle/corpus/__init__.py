"""Audio to learn from that everybody can fetch or render, none of it what is measured on."""
