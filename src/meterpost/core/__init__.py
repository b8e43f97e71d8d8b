"""Words every room shares: ids, money, quantities, periods, clocks, problems, errors.

Standard library only. No I/O, no configuration, nothing that knows a room.
"""
