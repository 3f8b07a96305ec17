"""Where a batch scheduler's commands run and its files lie: this machine, or one reached over SSH."""
