"""The schema of a model card, and what can be wrong with one; ``cards.py`` reads them."""
