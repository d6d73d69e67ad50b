"""The machine that is measured on: its condition, the watch over it, and what ``inference-gate doctor`` says of it."""
