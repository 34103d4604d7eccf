"""Auth's rules: pure, no I/O."""
