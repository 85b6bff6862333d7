"""Pure functions on plain tensors: no state, no checks of values, exportable."""
