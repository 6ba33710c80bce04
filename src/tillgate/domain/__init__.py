"""The rules of money: pure, standard library only, no clock, no I/O."""
