"""The archive of a result that somebody else can verify: what goes in, how it is written, how it is held to account."""
