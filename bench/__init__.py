"""Figures and ratios of speed and memory: `python -m bench` (docs/performance.md)."""
