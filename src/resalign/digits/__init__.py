"""The demo world: handwritten digits as a small text-to-image universe. Nothing but its own rules imports it."""
