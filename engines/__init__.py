"""Floor 4: secret engines, one file or package each; they know `holdfast.core.plugin` and the error tree only."""
