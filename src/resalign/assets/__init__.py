"""Files of others, fetched once: downloads, their hashes and checks, and what a machine still lacks."""
