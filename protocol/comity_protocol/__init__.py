"""The rules that both sides obey: pure functions over bytes, without I/O, clock or await."""
