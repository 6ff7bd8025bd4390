//! DNS, HTTPS and SMTP as the two sides of MTA-STS need them.
