"""`labelstore view`: a store over HTTP, for people (a web page) and for programs (``/api``).

- `serve`: a store -> a running server; `app`: what answers which address
- `site`: the store and all that is kept of it while it is served; `surveying`: one pass over its maps, in the background
- `guard`: the token, how much and how often may be asked; what every answer says to browsers
- `connections`: how many there may be, and how long a request may take to arrive; `opening`: the page of ``--open``
- `endpoints`: what an endpoint of the API is; `parameters`: what it takes, checked as it is described; `openapi`,
  `schemas`: the description; `naming`: rows and boxes that a request names; `selecting`: searches and filters
- `browsing`, `labels`, `facts`, `pictures`, `counting`: the endpoints
- ``assets/``: the page
"""
