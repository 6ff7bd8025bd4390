//! The preflight: a catalogue of checks on a mail domain.
