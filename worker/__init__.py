"""referral-sync: a faithful copy of Partner Center referrals in your own PostgreSQL."""
