//! What this kernel and machine offer, probed once and passed on as a plain value.
