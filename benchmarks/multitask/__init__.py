"""Many tasks at once: LiME, mixtures of adapters and PEFT's methods trained under one budget; ablations."""
