"""How good, how small and how fast: vaetools beside other codecs, on the user's own images."""
