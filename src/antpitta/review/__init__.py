"""The review of candidates by people: the queue's database, agreement, and the review page."""
