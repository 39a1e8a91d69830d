"""Partner Center: signing in, asking, and reading listings so that nothing is missed."""
