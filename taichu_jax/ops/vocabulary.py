"""The special token ids that every tokenizer here shares."""

PAD, MASK, CLS, SEP, BOS, UNK = range(6)
FIRST_TOKEN = 6  # ids from here on are text
