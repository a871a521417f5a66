"""The admin page: the coordinator's second face. It calls the API's routes in this process (coordinator/api/inside.py)
and knows nothing else; `views` decide what is shown, templates draw it."""
