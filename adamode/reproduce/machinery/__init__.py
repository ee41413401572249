"""What every figure is made with: its pieces, its verdicts and words, its page."""
