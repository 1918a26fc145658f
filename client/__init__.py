"""The Python SDK and the `holdfast` command. Imports `holdfast.proto` only."""
