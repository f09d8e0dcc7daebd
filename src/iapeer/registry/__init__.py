"""Who exists: local profiles (source of truth) and the host index."""
