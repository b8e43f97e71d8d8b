"""`python -m meterpost_sandbox` is the command `meterpost-sandbox`."""

from meterpost_sandbox.cli import main

main()
