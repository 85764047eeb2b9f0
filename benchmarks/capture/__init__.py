"""What it costs to keep a teacher's distributions: limits, peers and ours on one vLLM engine, on a CPU or a GPU."""
