"""Small web sites that a program serves about its own work, in a browser and nowhere else.

site   a server in a thread of its own, who may see it, and what every answer says

Beside it lie what all sites look like (base.css, icon.svg), the page that asks for the token
(login.html) and what charts are drawn with (drawing.js).
"""

from tinysaver_edge._support.web.site import HEADERS, Site, body_of

__all__ = ["HEADERS", "Site", "body_of"]
