//! The receiving side: host, publish, inbox, roll-out.
