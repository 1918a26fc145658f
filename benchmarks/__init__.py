"""The benchmark runner: speaks to nodes only through `holdfast.client` and processes."""
