"""RoIs to cells: equation 1, samplers, and the sum on each kind of device."""
