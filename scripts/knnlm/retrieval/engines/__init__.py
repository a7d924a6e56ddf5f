"""Search engines: exact, fused with encoding, and inverted files, all behind one contract."""
