"""referral-sync: a faithful copy of Partner Center referrals in PostgreSQL."""

RELEASE = "0.1.0"
"""This release; the package's version is read from here."""
