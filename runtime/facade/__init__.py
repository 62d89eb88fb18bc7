"""The parts of the class Runtime, one subject a file: loaded skills, the choice of one, conversations, comparisons."""
