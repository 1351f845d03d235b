"""The archive of a result that somebody else can verify: packing, and verification."""
