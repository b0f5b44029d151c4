"""Which release made a workload slower: environments that differ in one package, compared in alternation."""
