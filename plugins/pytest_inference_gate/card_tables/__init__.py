"""The tables of a model card that belong to one concept each; ``cards.py`` puts them together."""
