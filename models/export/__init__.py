"""The command `python -m models.export`: a saved model as files for phones, and what each gains and loses."""
