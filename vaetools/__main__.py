"""`python -m vaetools`, for torchrun."""

from .cli import main

main()
