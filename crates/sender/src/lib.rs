//! The sending side: policy answers and TLS reports.
