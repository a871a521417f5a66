"""A whole fleet on one machine, for the demo, the tests and the benchmarks.

What launchd is on a Mac, the supervisor in here is: it starts the coordinator and the agents and
starts them again when they end unasked.
"""
