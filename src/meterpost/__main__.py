"""``python -m meterpost``."""

from meterpost.cli import main

main()
