"""One folder an analysis: what it computes, what it returns, and how that is drawn."""
