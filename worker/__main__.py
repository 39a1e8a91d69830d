"""`python -m worker` is `referral-sync`."""

from worker.cli import main

main()
