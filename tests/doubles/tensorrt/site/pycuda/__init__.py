"""A double of PyCUDA over the simulated device."""
