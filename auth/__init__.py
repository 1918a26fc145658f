"""Floor 4: auth methods, one file or package each, under the same contract as engines."""
