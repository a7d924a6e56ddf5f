"""What every job needs: artifacts, logs, seeds, threads, fingerprints, provenance."""
