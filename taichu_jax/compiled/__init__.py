"""What the compiler made of a train step: memory, work and collectives, read from its own output."""
