"""The report page, the model card and their pictures."""
