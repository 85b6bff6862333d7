"""Other toolkits' weights, turned into ours."""
