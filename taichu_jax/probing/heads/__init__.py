"""What is learnt on frozen states: one small file a head."""
