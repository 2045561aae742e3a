//! Tests of command parsing.
