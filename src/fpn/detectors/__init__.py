"""Parts put together into a detector with verbs."""
