//! Black-box tests, fault injection, conformance and benchmarks; talks to the programs only from outside
