"""Mathematics used by two or more objectives or models."""
