"""Study of one solve: problems by name, what each attempt did, work against precision, pictures."""
