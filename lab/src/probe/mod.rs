//! Traffic probes (filled in below).
