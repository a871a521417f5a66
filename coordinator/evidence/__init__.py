"""One archive for each rollout: all that it rests on, so that others can check it with the fleet's root alone."""
