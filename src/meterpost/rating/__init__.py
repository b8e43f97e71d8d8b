"""Price models: a quantity in, an amount with its working out.

Pure: no store, no clock, no configuration. What a contract line costs is decided here and
nowhere else; who owes it, when, and in which document is decided by masterdata, workflows and
staging. `model` is the door for other rooms; docs/rating.md explains every rule with examples.
"""
