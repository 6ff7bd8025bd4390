//! The internet in a box: every good and broken kind of mail domain on loopback.
