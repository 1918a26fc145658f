"""Exit codes of `holdfastd`."""

EXIT_ERROR = 1
"""It could not start: the configuration, a port or a file; or it was called wrongly. The message says which."""

EXIT_FATAL = 70
"""The node's state became doubtful and it stopped itself (EX_SOFTWARE of sysexits.h). Look before you restart it."""
