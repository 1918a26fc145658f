"""The chaos harness: speaks to nodes only through `holdfast.client` and processes."""
