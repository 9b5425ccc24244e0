"""Letters to the people of laboratories: written from templates, and handed to a mail server."""
