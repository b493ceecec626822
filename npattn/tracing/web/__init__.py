"""A trace as a web page to step through (extra ``page``)."""

from npattn.tracing.web.page import web_page

__all__ = ["web_page"]
