"""The page of one solve: every attempt in numbers, and a small program that draws them in a browser."""
