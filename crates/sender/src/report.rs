//! The reports about what deliveries met (RFC 8460).
