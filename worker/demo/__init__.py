"""A faithful fake Partner Center, hostile on request, for `referral-sync simulate`, `demo` and the tests."""
