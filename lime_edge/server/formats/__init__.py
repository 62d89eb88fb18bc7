"""What goes over the wire: bodies of requests and answers in the forms of OpenAI's API, and errors."""
