"""The share of traffic that each node should take: decided here, published by the node's own agent."""
