"""What a person looks at: figures and the page of each kind of run. Reads folders, computes nothing, needs no torch."""
