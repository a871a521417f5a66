"""Benchmarks. Each runs ours and its rival, or its floor, in turn in one run: the ratio is the result.

A benchmark is a module with `FIGURES` (the names it prints) and `async run_round(say) -> [Sample]`; it
is listed in `__main__.BENCHMARKS`. What is below was fixed before it was measured.

| bench | figures |
|---|---|
| footprint | cpu_vs_serf, memory_vs_floor, memory_vs_serf, memory_vs_node_exporter |
| rollout | overhead_n3_vs_ansible |
| readiness | p50_vs_bare |
| detect | kill_vs_serf, cut_vs_serf |
"""
