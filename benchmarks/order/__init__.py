"""The order of training examples: what reading costs, how fair a step is, and what students learn from it."""
