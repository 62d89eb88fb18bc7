"""One task at a time: quality against file size of LiME skills and PEFT adapters."""
