"""What a model can do, in figures: losses on named sets, tasks with one right answer, texts that it writes."""
